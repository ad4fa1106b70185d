"""How memories and passages get vectors of the embedder that is in use now."""
