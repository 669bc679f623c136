"""Write the tables of README.md and docs/performance.md from the figures that scripts/benchmark.py left in docs.

python scripts/render_benchmarks.py
python scripts/render_benchmarks.py --check    # say which pages are out of date, with status 1, and write nothing
"""

import argparse
import json
import re
import sys
from pathlib import Path

from sk_transformers.cli.errors import exit_on_user_error

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/performance.md")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where a page is out of date")
    return parser.parse_args(argv)


def render_tables() -> dict[str, str]:
    """Tables by the names of the blocks that they stand in."""
    from sk_transformers.benchmarks import scaling, speed

    measured = json.loads((ROOT / "docs" / "speed.json").read_text())
    results = speed.from_json(measured)
    points = scaling.from_json(json.loads((ROOT / "docs" / "growth.json").read_text()))
    return {
        "machine": speed.to_sentence(measured["machine"]),
        "speed summary": speed.to_summary(results),
        "speed": speed.to_table(results),
        "growth": scaling.to_exponent_table(points),
    }


def fill(text: str, tables: dict[str, str]) -> str:
    """`text` with every block between `<!-- NAME -->` and `<!-- end of NAME -->` made anew."""
    for name, table in tables.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        text = block.sub(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", text)
    return text


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    tables = render_tables()
    pages = {ROOT / page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    stale = [page for page, text in pages.items() if fill(text, tables) != text]
    if args.check:
        names = ", ".join(str(page.relative_to(ROOT)) for page in stale)
        sys.exit(f"error: out of date: {names}. Run scripts/render_benchmarks.py." if stale else 0)
    for page in stale:
        page.write_text(fill(pages[page], tables), encoding="utf-8")
    print(f"{len(stale)} of {len(pages)} pages written")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
