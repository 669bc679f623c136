"""The one switch of all fast paths: off, a network computes as its layers and `reference.py` say.

Where a result looks wrong, compute it again with `SK_TRANSFORMERS_FAST=0` or after `use_fast_paths(False)`: if it
differs, a fast path has a fault.
"""

from os import environ

_enabled = environ.get("SK_TRANSFORMERS_FAST", "1") != "0"


def use_fast_paths(enabled: bool | None = None) -> bool:
    """Return whether fast paths are taken; with `enabled`, set it first, for every network of this process.

    A copy of this file that was loaded as remote code has a switch of its own; the environment variable turns all off.
    """
    global _enabled
    if enabled is not None:
        _enabled = enabled
    return _enabled
