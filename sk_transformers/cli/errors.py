"""How commands and scripts end: with one sentence for an error in what the user gave."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires

DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "yaml": "pyyaml",
}  # not called like their module


@contextmanager
def exit_on_user_error(*expected: type[Exception]) -> Iterator[None]:
    """End the process with status 1 and the sentence of an error in what the user gave, or of an `expected` type.

    A module that is not installed is such an error, too. Control-C ends the process with status 130, as in a shell.
    `SK_TRACEBACK=1` shows where an error was raised instead.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, *expected) as error:
        if os.environ.get("SK_TRACEBACK") == "1":
            raise
        lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
        if any(line.startswith("Traceback") for line in lines):  # of a data loader's worker; the sentence is last
            lines = [lines[-1].partition(": ")[2]]
        sys.exit(f"error: {' '.join(lines)}{how_to_install(error)}")
    except KeyboardInterrupt:
        sys.exit(130)


def how_to_install(error: Exception) -> str:
    """Return what installs a module that is missing, or nothing where that is not the error or it is not of ours."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return ""
    if error.name.startswith("sk_transformers.benchmarks"):  # not in the wheel
        return ": benchmarks need a checkout of the project, installed by pip install -e ."
    module = error.name.partition(".")[0]
    extra = extra_with(DISTRIBUTIONS.get(module, module))
    return "" if extra is None else f": pip install 'sk-transformers[{extra}]'."


def extra_with(distribution: str) -> str | None:
    """Return the first extra of this package that installs a distribution, or None."""
    try:
        requirements = requires("sk-transformers") or []
    except PackageNotFoundError:
        return None
    for requirement in requirements:
        parts = re.match(r"([\w.-]+).*; extra == [\"'](\w+)[\"']", requirement)
        if parts and parts[1].lower() == distribution.lower():
            return parts[2]
    return None
