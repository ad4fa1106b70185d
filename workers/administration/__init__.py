"""`everturn admin`: the API's administration from the command line."""
