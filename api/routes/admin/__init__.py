"""The administrators' routes; all of them are under `/admin`."""
