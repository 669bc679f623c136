"""What the scripts share as programs."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_sentence_errors(*expected: type[Exception]) -> Iterator[None]:
    """End the process with status 1 and the sentence of an error in what the user gave, or of an `expected` type.

    `SK_TRACEBACK=1` shows where it was raised instead.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, *expected) as error:
        if os.environ.get("SK_TRACEBACK") == "1":
            raise
        lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
        if any(line.startswith("Traceback") for line in lines):  # of a data loader's worker; the sentence is last
            lines = [lines[-1].partition(": ")[2]]
        sys.exit(f"error: {' '.join(lines)}")
