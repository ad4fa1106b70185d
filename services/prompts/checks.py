"""Owns what a prompt has to be before turns are answered with it."""

from services.prompts.placeholders import PLACEHOLDERS, unknown_placeholders
from services.prompts.tokens import estimated_tokens


def problems_of(content: str, *, max_tokens: int) -> tuple[str, ...]:
    """Return what is wrong with a prompt, a sentence each; nothing where it can be used."""
    problems: list[str] = []
    if not content.strip():
        problems.append("The prompt is blank.")
    tokens = estimated_tokens(len(content))
    if tokens >= max_tokens:
        problems.append(
            f"The prompt has about {tokens:,} tokens; it has to have fewer than {max_tokens:,}, "
            "half of what a whole prompt may have."
        )
    known = ", ".join(f"{{{name}}}" for name in sorted(PLACEHOLDERS))
    problems += [
        f"There is no placeholder {{{name[:50]}}}. There are: {known}."
        for name in unknown_placeholders(content)[:10]
    ]
    return tuple(problems)
