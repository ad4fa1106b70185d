"""The gateway to the model provider, and what its calls cost."""
