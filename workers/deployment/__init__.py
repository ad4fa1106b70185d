"""`everturn deployment`: the versions of the workers, as Temporal routes work to them."""
