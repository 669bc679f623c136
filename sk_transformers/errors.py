"""Sentences made of errors."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name where there is no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
