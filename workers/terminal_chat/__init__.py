"""The terminal client: talks to the HTTP API and shares no code with the server behind it."""
