"""The HTTP front: it authenticates, starts workflows and streams their progress."""
