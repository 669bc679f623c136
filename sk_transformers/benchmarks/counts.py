"""Parameters and multiply-adds of the zoo's networks, beside the figures that their authors published."""

from collections.abc import Sequence

from ..complexity import count_macs, count_parameters
from ..zoo import create_config, get_variant

LARGE_SIZE = 384  # pixels, for networks made for 224
HEADER = (
    "| model | parameters, M | published | image size | MACs, G | published | MACs at 384, G | published |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def to_table(names: Sequence[str]) -> str:
    """Return Markdown: a row for each network and, below, why published figures differ from counted ones."""
    notes: dict[str, list[str]] = {}
    for name in names:
        note = get_variant(name).published.note
        if note:
            notes.setdefault(note, []).append(f"`{name}`")
    lines = [*HEADER, *map(to_row, names), "", *(f"- {', '.join(named)}: {note}" for note, named in notes.items())]
    return "\n".join(lines)


def to_row(name: str) -> str:
    """Return a network's row, counted and published figures side by side."""
    config, published = create_config(name), get_variant(name).published
    at_384 = count_macs(config, LARGE_SIZE) / 1e9 if config.image_size == 224 else None
    cells = [
        f"`{name}`",
        f"{count_parameters(config) / 1e6:.2f}",
        cell(published.parameters),
        str(config.image_size),
        f"{count_macs(config) / 1e9:#.3g}",
        cell(published.macs),
        cell(at_384, ".1f"),
        cell(published.macs_384),
    ]
    return f"| {' | '.join(cells)} |"


def cell(value: float | None, spec: str = "g") -> str:
    """Return a number as text, or nothing where there is none."""
    return "" if value is None else format(value, spec)
