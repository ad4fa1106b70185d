"""Temporal activities: thin adapters over the services."""
