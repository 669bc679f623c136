"""Write the cards of the zoo's networks to `model_cards/`, one for each name, after the template or the zoo changed.

python scripts/render_cards.py
python scripts/render_cards.py --check    # say which are out of date, with status 1, and write nothing
"""

import argparse
import json
import sys
from pathlib import Path

from sk_transformers.cli.errors import exit_on_user_error

FOLDER = Path(__file__).parents[1] / "model_cards"
INDEX = "README.md"
EVALUATION = "evaluation"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where a card is out of date")
    return parser.parse_args(argv)


def render_cards() -> dict[str, str]:
    """The cards by their files."""
    import torch
    from transformers import AutoModelForImageClassification

    from sk_transformers import create_config, list_models
    from sk_transformers.hub.cards.card import OriginFacts, create_card
    from sk_transformers.zoo import TRAINED

    cards = {}
    for name in list_models():
        if name in TRAINED:
            cards[f"{name}/{INDEX}"] = trained_card(FOLDER / name, name)
            continue
        with torch.device("meta"):
            model = AutoModelForImageClassification.from_config(create_config(name))
        cards[f"{name}.md"] = str(create_card(model, name, origin=OriginFacts(name)))
    return cards


def trained_card(folder: Path, name: str) -> str:
    """The card of a network whose weights, records and pictures are in a folder."""
    import torch

    from sk_transformers.hub.cards.card import RepoFacts
    from sk_transformers.hub.cards.completion import evaluation_of, model_of
    from sk_transformers.training.run_record import run_card
    from sk_transformers.zoo import ORGANIZATION

    record, examples = (json.loads((folder / file).read_text()) for file in ("metrics.json", "examples.json"))
    repo = RepoFacts(f"{ORGANIZATION}/{name}", examples=examples, weights_dtype=torch.float16)
    evaluation = evaluation_of(folder / EVALUATION, prefix=f"{EVALUATION}/")
    return str(run_card(model_of(folder), name, record, [evaluation], repo))


def out_of_date(cards: dict[str, str], folder: Path = FOLDER) -> list[str]:
    """Names of files that are missing, other than they would be written, or of no network any more."""
    files = [file for file in folder.glob("*.md") if file.name != INDEX] + list(folder.glob(f"*/{INDEX}"))
    found = {file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8") for file in files}
    found.pop(f"examples/{INDEX}", None)
    return sorted(name for name in cards.keys() | found.keys() if cards.get(name) != found.get(name))


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cards = render_cards()
    stale = out_of_date(cards)
    if args.check:
        sys.exit(f"error: out of date: {', '.join(stale)}. Run scripts/render_cards.py." if stale else 0)
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        if name in cards:
            (FOLDER / name).write_text(cards[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    print(f"{len(stale)} of {len(cards)} cards written to {FOLDER.name}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
