"""Errors that a user can mend, shown as one sentence."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class DataError(ValueError):
    """Something in the user's images or labels."""


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """End the process with status 1 and the sentence of an error in what the user gave.

    `SK_TRACEBACK=1` shows where it was raised instead.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("SK_TRACEBACK") == "1":
            raise
        # A data loader's worker puts its traceback before the sentence.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        sentence = (
            lines[-1] if len(lines) > 1 and "Traceback" in str(error) else " ".join(line.strip() for line in lines)
        )
        sys.exit(f"error: {sentence.removeprefix(f'{type(error).__module__}.{type(error).__name__}: ')}")
