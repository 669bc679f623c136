"""Image files that are the same on every machine: for benchmarks that need images, and no data set."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

PHOTO_SIZE = (500, 375)  # pixels, as most of ImageNet
VALIDATION_IMAGES = 20


def write_images(folder: Path, kind: str, count: int) -> None:
    """Write `count` images to `train` and some to `validation`, each with a folder of images for every class.

    `kind` is `"photos"`, JPEG files of `PHOTO_SIZE`, or `"digits"`, PNG files of 8x8 pixels.
    """
    examples = {"photos": photos, "digits": digits}[kind]
    for split, number in (("train", count), ("validation", VALIDATION_IMAGES)):
        for index, (image, label) in enumerate(examples(number)):
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            suffix = "jpg" if kind == "photos" else "png"
            image.save(folder / split / label / f"{index}.{suffix}", quality=90)


def photos(count: int) -> list[tuple[Image.Image, str]]:
    """Return random parts of scikit-learn's two photographs."""
    rng = np.random.default_rng(0)
    sources = [Image.fromarray(image) for image in load_sample_images().images]
    parts = []
    for index in range(count):
        source = sources[index % 2]
        left, top = (int(rng.integers(whole - part)) for whole, part in zip(source.size, PHOTO_SIZE))
        box = (left, top, left + PHOTO_SIZE[0], top + PHOTO_SIZE[1])
        parts.append((source.crop(box), ("china", "flower")[index % 2]))
    return parts


def digits(count: int) -> list[tuple[Image.Image, str]]:
    """Return scikit-learn's handwritten digits, some of them more than once if there are too few."""
    data: Any = load_digits()
    images = (data.images * (255 / 16)).astype(np.uint8)
    return [
        (Image.fromarray(images[index % len(images)]), str(data.target[index % len(images)])) for index in range(count)
    ]
