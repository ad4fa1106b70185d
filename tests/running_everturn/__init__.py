"""Everturn as it runs: its processes, its API and the model that it asks, for tests."""
