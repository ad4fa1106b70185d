"""`everturn admin`: administration of a running API, from the command line."""
