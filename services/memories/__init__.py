"""Memories: what users have said that is worth remembering, kept, found and suggested."""
