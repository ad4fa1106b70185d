"""The processes: command line, composition root, workers and the embedded stack."""
