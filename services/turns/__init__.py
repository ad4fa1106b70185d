"""A turn from its acceptance to its end: what the database decides and keeps of it."""
