"""Example images with the answers that a model really gave: the `widget` metadata of its card.

The Hub's hosted inference does not run a repo's own code, but it shows what the metadata holds.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel, pipeline
from transformers.image_processing_utils import BaseImageProcessor

from ..registration import register_auto_classes

TOP_K = 5
EXAMPLES = "examples"  # the folder in a repo that the images lie in


def widget_examples(
    model: PreTrainedModel, processor: BaseImageProcessor, images: Mapping[str, Image.Image]
) -> list[dict[str, Any]]:
    """The `widget` metadata of a card, from what `pipeline("image-classification")` answers.

    Args:
        model: an image classifier. It is set to evaluation mode.
        processor: the image processor of the model's repo.
        images: by the path that each has, or will have, in the repo folder: `{"examples/bee.png": image}`.

    Returns:
        For each image `{"src": path, "example_title": the file's stem, "output": [{"label": ..., "score": ...}, ...]}`
        with at most five classes, the likeliest first, and scores of four decimals.

    Raises:
        ValueError: if there are no images.
    """
    if not images:
        raise ValueError("No images: a widget needs at least one example.")
    classify = pipeline("image-classification", model=model.eval(), image_processor=processor, device=model.device)
    with torch.inference_mode():
        answers = classify([image.convert("RGB") for image in images.values()], top_k=TOP_K)
    return [
        {
            "src": path,
            "example_title": Path(path).stem,
            "output": [{"label": answer["label"], "score": round(answer["score"], 4)} for answer in ranked],
        }
        for path, ranked in zip(images, answers)
    ]


def add_widget_examples(repo: str | Path, images: Mapping[str, Image.Image]) -> list[dict[str, Any]]:
    """Put images into a repo folder, as `examples/NAME.png`, and return the metadata that shows them.

    Args:
        repo: a folder written by `export`; its card is left as it is.
        images: by name, which becomes the file's name and the example's title.

    Raises:
        ValueError: if there are no images, or a name is no plain file name.
        FileExistsError: if the repo has an example of that name.
    """
    repo = Path(repo)
    files = {}
    for name, image in images.items():
        if not name or Path(name).name != name or name.startswith("."):
            raise ValueError(f"{name!r} cannot name an example: expected a plain file name without folders.")
        path = f"{EXAMPLES}/{name}.png"
        if (repo / path).exists():
            raise FileExistsError(f"{repo / path} exists already: nothing was written. Choose another name.")
        files[path] = image.convert("RGB")
    register_auto_classes()
    model = AutoModelForImageClassification.from_pretrained(repo)
    examples = widget_examples(model, AutoImageProcessor.from_pretrained(repo), files)
    for path, image in files.items():
        save_whole(image, repo / path)
    return examples


def save_whole(image: Image.Image, file: Path) -> None:
    """Write a PNG that appears whole or not at all."""
    file.parent.mkdir(exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=file.parent, suffix=".png")
    os.close(handle)
    try:
        image.save(partial)
        os.chmod(partial, 0o644)
        os.replace(partial, file)
    except BaseException:
        os.unlink(partial)
        raise
