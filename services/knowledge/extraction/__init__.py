"""Documents become plain text here: bytes in, text or a refusal out."""
