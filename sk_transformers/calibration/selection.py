"""Which layers lose their attention: by hand, or by the damage for what is saved."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple


class Replacement(NamedTuple):
    """A layer, counted from 0, and the kind of mixer that takes the place of its attention."""

    layer: int
    kind: str


def parse_layers(text: str, attention_layers: list[int], num_layers: int) -> list[int]:
    """Return the layers of `"1-4,10"`, in order.

    Raises:
        ValueError: if the text is not of this form, or a layer does not exist or has no attention.
    """
    layers = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ValueError(
                f"--layers {text}: {part.strip()!r} is no layer or range of layers, expected such as 1-4,10."
            )
        layers |= set(range(first, last + 1))
    missing = sorted(layer for layer in layers if layer >= num_layers)
    if missing:
        raise ValueError(f"--layers {text}: there is no layer {missing[0]}; the network has 0 to {num_layers - 1}.")
    static = sorted(layers - set(attention_layers))
    if static:
        raise ValueError(f"--layers {text}: layer {static[0]} has no attention to replace.")
    return sorted(layers)


def greedy_order(candidates: Iterable[dict[str, Any]]) -> list[Replacement]:
    """Return one replacement a layer, those first that cost the least error for each multiply-add that they save.

    Args:
        candidates: with `layer`, `kind`, `error` and `saved_macs`; those that save nothing are left out.
    """
    useful = [candidate for candidate in candidates if candidate["saved_macs"] > 0]
    order: dict[int, Replacement] = {}
    for candidate in sorted(useful, key=lambda one: (one["error"] / one["saved_macs"], one["layer"])):
        order.setdefault(candidate["layer"], Replacement(candidate["layer"], candidate["kind"]))
    return list(order.values())
