"""The event stream of a turn: written through Redis, read from Redis or from the database."""
