"""What a card can say only when it is pushed: where it goes, and which pictures and evaluations go with it."""

import io
import re
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from transformers import AutoConfig, PreTrainedModel

from ...registration import auto_class_of
from ..errors import PreflightError
from ..preflight import read_object
from .card import SECTIONS, RepoFacts, TrainingFacts, create_card
from .merge import MODEL_INDEX, digest, insert_after, is_metadata, join_card, merge_results, parse_card

EXAMPLES = "examples"  # the folder of a repo
EVALUATION = {  # what a card takes from an evaluation's record, beside one of the figures that count
    "dataset": str, "split": str, "images": int,
}  # fmt: skip
COUNTING = ("top1", "mean_average_precision", "mean_iou", "box_ap")
MAX_ANSWERS = 3  # to an example
EXAMPLE_SIZE = 512  # pixels of the longer side; a picture's metadata, with the place it was taken at, stays behind
PLOTS = {
    "confusion.png": "Confusion of the classes",
    "classes.png": "Figures of the classes",
    "reliability.png": "Reliability of the confidences",
    "robustness.png": "Accuracy under corruptions",
}


def complete_card(
    folder: Path,
    repo_id: str,
    tag: str | None,
    plots: dict[str, str],
    evaluations: list[dict[str, Any]],
    examples: list[dict[str, Any]],
) -> str:
    """Return the card in a repo folder, with the sections that could not be written before.

    They are how to load it from its repo and by which files, the plots that it does not show yet, evaluations and
    examples. A section that was edited, and a card that was not generated, stay as they are.

    Args:
        folder: the repo folder.
        repo_id, tag: where it goes.
        plots: titles of pictures by their files in the repo.
        evaluations, examples: see `evaluation_of` and `example_of`.
    """
    text = (folder / "README.md").read_text(encoding="utf-8")
    card = parse_card(text)
    if card.digests is None:
        return text
    plots = {file: title for file, title in plots.items() if f"({file})" not in text}
    fresh = parse_card(
        str(
            create_card(
                model_of(folder),
                folder.name,
                TrainingFacts({"": ""}),
                evaluations=evaluations,
                repo=RepoFacts(
                    repo_id,
                    tag,
                    examples,
                    plots,
                    has_handler=(folder / "handler.py").is_file(),
                    has_decoder=(folder / "decoding.py").is_file(),
                    onnx=onnx_report(folder),
                ),
            )
        )
    )
    names = ["## How to use it", "## Evaluation", "## Examples", "## Plots", "widget:", "metrics:"]
    for name in names:
        if name not in fresh.items or (name in card.items and not card.is_untouched(name)):
            continue
        value = fresh.items[name]
        if name in card.items:
            card.items[name] = value
        else:
            order = list(card.items) if is_metadata(name) else SECTIONS[: SECTIONS.index(name)]
            card.items = insert_after(card.items, order, name, value)
        card.digests[name] = digest(value)
    index = f"{MODEL_INDEX}:"
    if index in fresh.items:
        was_untouched = index not in card.items or card.is_untouched(index)
        card.items[index] = merge_results(card.items.get(index), fresh.items[index], untouched=False)
        if was_untouched:
            card.digests[index] = digest(card.items[index])
    return join_card(card)


def onnx_report(folder: Path) -> dict[str, Any] | None:
    """Return what `export_onnx` wrote beside its graphs; None if there are none, or they come from another program."""
    file = folder / "onnx" / "export.json"
    report = read_object(file) if file.is_file() else {}
    sizes = report.get("bytes")
    return report if isinstance(sizes, dict) and all(isinstance(size, int) for size in sizes.values()) else None


def model_of(folder: Path) -> PreTrainedModel:
    """Return the folder's network without its weights."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = auto_class_of((config.architectures or [""])[0]).from_config(config)
    return model.to(config.dtype or torch.float32)


def evaluation_of(folder: Path, prefix: str | None = None) -> dict[str, Any]:
    """Return an evaluation's record, with its `files` by their paths in the repo and the titles of its `plots`.

    Args:
        folder: as `sk-transformers evaluate` wrote it.
        prefix: of the paths in the repo; made of data and split when None.

    Raises:
        PreflightError: if the folder holds none.
    """
    record = read_object(folder / "evaluation.json") if (folder / "evaluation.json").is_file() else {}
    is_complete = all(isinstance(record.get(name), kind) for name, kind in EVALUATION.items())
    is_complete &= isinstance(record.get("loss", None if "box_ap" not in record else 0.0), float)  # a detector has none
    is_complete &= isinstance(record.get("calibration_error", 0.0), float)  # masks have none
    if not is_complete or not any(isinstance(record.get(name), float) for name in COUNTING):
        raise PreflightError(
            f"{folder} has no evaluation.json that sk-transformers evaluate wrote: evaluate the model first."
        )
    dataset, split = Path(record["dataset"]).name, record["split"]
    if prefix is None:
        prefix = "evaluation/" + re.sub(r"[^\w.-]+", "-", f"{dataset}-{split}-")
    pictures = {f"{prefix}{file}": folder / file for file in PLOTS if (folder / file).is_file()}
    titles = {path: f"{PLOTS[file.name]}: {dataset}, {split}" for path, file in pictures.items()}
    return {**record, "dataset": dataset, "files": pictures, "plots": titles}


def example_of(image: Path, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an image with the model's best answers; its `picture` as bytes, small and without metadata."""
    with Image.open(image) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture.thumbnail((EXAMPLE_SIZE, EXAMPLE_SIZE))
    content = io.BytesIO()
    picture.save(content, "PNG")
    output = [{"label": answer["label"], "score": round(answer["score"], 4)} for answer in answers[:MAX_ANSWERS]]
    name, title = re.sub(r"[^\w.-]+", "-", image.stem), re.sub(r"[-_]+", " ", image.stem)
    return {"file": f"{EXAMPLES}/{name}.png", "title": title, "output": output, "picture": content.getvalue()}
