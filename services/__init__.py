"""The domain and the gateways to everything outside; knows neither Temporal nor FastAPI."""
