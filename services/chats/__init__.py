"""Conversations: creating, listing and reading them."""
