"""What goes to the Hub: the files of a repo folder, a run's plots, evaluations and examples, and the completed card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cards.completion import EXAMPLES, complete_card
from .errors import PreflightError
from .preflight import IMAGES, check_card, check_file, read_object, repo_files
from .remote import CARD, Content
from .report import Target


def open_folder(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the repo folder in a run's folder, and the run's record; of a repo folder itself, an empty one."""
    if (folder / "config.json").is_file():
        run = folder.parent if folder.name == "model" and (folder.parent / "metrics.json").is_file() else None
    elif (folder / "model" / "config.json").is_file():
        folder, run = folder / "model", folder
    else:
        raise PreflightError(
            f"{folder} is neither a run's folder (with model/ in it) nor a repo folder (with config.json in it): give"
            " what sk-transformers train or sk-transformers convert wrote."
        )
    if run is None or not (run / "metrics.json").is_file():
        return folder, {}
    record = read_object(run / "metrics.json")
    numbers = record.get("fingerprint", [])
    if not isinstance(numbers, list) or not all(isinstance(number, int | float) for number in numbers):
        raise PreflightError(f"{run / 'metrics.json'}: fingerprint is {numbers!r}, expected numbers: restore the file.")
    return folder, record


def find_examples(folder: Path, given: Sequence[str | Path]) -> list[Path]:
    """Return the images to show on the card: those that were given, or else those in the folder's `examples/`.

    Raises:
        PreflightError: if one of them is not an image.
    """
    found = sorted(file for file in (folder / EXAMPLES).glob("*") if file.suffix.lower() in IMAGES)
    images = [Path(image) for image in given] or found
    for image in images:
        if not image.is_file() or image.suffix.lower() not in IMAGES:
            raise PreflightError(f"{image} is not an image ({', '.join(IMAGES)}): choose other examples.")
        check_file(image.name, image)
    return images


def run_plots(folder: Path) -> dict[str, Path]:
    """Return the plots of a run, which lie beside its repo folder, by their paths in the repo.

    Pictures of the data's images lie deeper, in `preflight.UNPUBLISHED`.
    """
    return {file.name: file for file in sorted(folder.parent.glob("*.png"))} if folder.name == "model" else {}


def collect_files(folder: Path, evaluations: Sequence[dict[str, Any]] = ()) -> dict[str, Path]:
    """Return the files that the repo is to hold by their paths there; examples and the completed card come later.

    Args:
        folder: the repo folder.
        evaluations: see `evaluation_of`.
    """
    files = {path: file for path, file in repo_files(folder).items() if not path.startswith(f"{EXAMPLES}/")}
    files |= {path: file for path, file in run_plots(folder).items() if path not in files}
    for evaluation in evaluations:
        files |= evaluation["files"]
    return files


def add_card(
    files: dict[str, Path],
    folder: Path,
    target: Target,
    evaluations: Sequence[dict[str, Any]] = (),
    examples: Sequence[dict[str, Any]] = (),
) -> dict[str, Content]:
    """Return the files with the examples and the card that speaks of all of them.

    Args:
        files: see `collect_files`.
        folder: the repo folder.
        target: where it goes.
        evaluations, examples: see `evaluation_of` and `example_of`.

    Raises:
        PreflightError: if the completed card is not fit to be published.
    """
    titles = {path: Path(path).stem.replace("_", " ").capitalize() for path in run_plots(folder)}
    card = complete_card(folder, target.repo_id, target.tag, titles, list(evaluations), list(examples))
    check_card(card)
    return {**files, **{example["file"]: example["picture"] for example in examples}, CARD: card.encode()}
