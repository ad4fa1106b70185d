"""Extraction of plain text from documents: bytes in, a text or a refusal out."""
