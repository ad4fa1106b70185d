"""Users: their accounts, preferences and API keys, and the export of their data."""
