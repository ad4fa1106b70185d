"""Memories: what users said that is worth remembering, stored, found and suggested."""
