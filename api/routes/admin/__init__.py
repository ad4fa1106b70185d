"""What administrators do, one module for each noun; all of it is under `/admin`."""
