"""The terminal chat, built on the public client; it shares no code with the server behind it."""
