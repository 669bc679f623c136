"""Folders of images to train on."""

from typing import Any

import numpy as np
from PIL import Image

from sk_transformers.data.image_data import ImageData
from sk_transformers.data.labeled import load_data
from sk_transformers.data.options import DataOptions


def write_images(folder, classes=("cat", "dog"), images=10):
    """A folder of noise for each class, no two images alike."""
    rng = np.random.default_rng(0)
    for label in classes:
        (folder / label).mkdir(parents=True)
        for i in range(images):
            Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / label / f"{i}.png")
    return folder


def load_images(dataset, streaming: bool = False, **options: Any) -> ImageData:
    """The data set of that name or at that path."""
    return load_data(DataOptions(str(dataset), **options), streaming)


def write_files(folder, *names):
    """An image at each of these paths below the folder, no two alike."""
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number % 256, number // 256, len(name))).save(
            file, format="JPEG" if file.suffix == ".jpg" else "PNG"
        )
    return folder
