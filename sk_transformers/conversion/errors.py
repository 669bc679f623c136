"""The one error of this package, and how it lists names."""

from collections.abc import Iterable


class CheckpointError(ValueError):
    """A source that cannot be converted; its message is one sentence that says why and what to do."""


def shorten(names: Iterable[str], count: int = 8) -> str:
    """Return the first names of what may be very many."""
    names = sorted(names)
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
