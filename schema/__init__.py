"""The vocabulary that every other package shares: ids, payloads, events, errors and tables."""
