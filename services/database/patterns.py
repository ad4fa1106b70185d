"""Owns patterns of LIKE made from what people search for, in which no character is a wildcard."""


def containing(text: str) -> str:
    """Return the pattern that matches whatever contains `text`; the escape is a backslash."""
    escaped = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"
