"""The trained networks of the zoo as a table, from the records beside their weights."""

import json
from pathlib import Path
from typing import Any

from ..complexity import count_macs, count_parameters
from ..training.run_record import duration
from ..zoo import TRAINED, TRAINED_FOLDER, create_config

HEADER = """\
| network | parameters, M | MACs, M | measured on | top-1, % | trained in |
| --- | ---: | ---: | --- | ---: | ---: |"""


def to_table(folder: Path = TRAINED_FOLDER, prefix: str = "") -> str:
    """Return a row of Markdown for each trained network; `prefix` leads from the page to the checkout."""
    return "\n".join([HEADER, *(to_row(name, folder / name, prefix) for name in TRAINED)])


def to_row(name: str, folder: Path, prefix: str) -> str:
    config = create_config(name)
    evaluation: dict[str, Any] = json.loads((folder / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    record: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    data = f"{evaluation['dataset']}, {evaluation['split']}, {evaluation['images']} images"
    cells = [
        f"[`{name}`]({prefix}model_cards/{name}/README.md)",
        f"{count_parameters(config) / 1e6:.2f}",
        f"{count_macs(config) / 1e6:.1f}",
        data,
        f"{100 * evaluation['top1']:.2f}",
        duration(record["seconds"]),
    ]
    return f"| {' | '.join(cells)} |"
