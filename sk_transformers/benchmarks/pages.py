"""The tables of the documentation that are made of measured figures: those of the JSON files in `docs`."""

import json
import re
from pathlib import Path

from . import calibration_report, dense, displacement, loading, runtimes, scaling, speed, speed_report, trained_report

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/dense.md", "docs/mixers.md", "docs/performance.md", "docs/pretrained.md")


def render_tables() -> dict[str, str]:
    """Return tables by the names of the blocks that they stand in."""
    measured = json.loads((ROOT / "docs" / "speed.json").read_text(encoding="utf-8"))
    results = speed.from_json(measured)
    points = scaling.from_json(json.loads((ROOT / "docs" / "scaling.json").read_text(encoding="utf-8")))
    tables: dict[str, str] = {}
    for file in sorted((ROOT / "docs").glob("calibration-*.json")):
        tables |= calibration_report.to_tables(json.loads(file.read_text(encoding="utf-8")))
    deployed = json.loads((ROOT / "docs" / "runtimes.json").read_text(encoding="utf-8"))
    displaced = json.loads((ROOT / "docs" / "displacement.json").read_text(encoding="utf-8"))
    backbones = json.loads((ROOT / "docs" / "dense.json").read_text(encoding="utf-8"))
    loaded = json.loads((ROOT / "docs" / "loading.json").read_text(encoding="utf-8"))
    return tables | {
        "dense": dense.to_text(backbones),
        "loading": loading.to_text(loaded),
        "displacement": displacement.to_text(displaced),
        "trained": trained_report.to_table(),
        "machine": speed_report.to_sentence(measured["machine"]),
        "speed summary": speed_report.to_summary(results),
        "speed": speed_report.to_table(results),
        "runtimes": runtimes.to_text(deployed),
        "runtimes summary": runtimes.to_summary(deployed),
        "scaling": scaling.to_exponent_table(points),
    }


def fill(text: str, tables: dict[str, str]) -> str:
    """Return `text` with every block between `<!-- NAME -->` and `<!-- end of NAME -->` made anew."""
    for name, table in tables.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        text = block.sub(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", text)
    return text


def outdated_pages() -> dict[Path, str]:
    """Return the pages whose tables are not those of the figures, with the text that they should have."""
    tables = render_tables()
    texts = {ROOT / page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    filled = {page: fill(text, tables) for page, text in texts.items()}
    return {page: text for page, text in filled.items() if text != texts[page]}
