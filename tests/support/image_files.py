"""Folders of images to train on."""

import numpy as np
from PIL import Image


def write_images(folder, classes=("cat", "dog"), images=10):
    """A folder of noise for each class, no two images alike."""
    rng = np.random.default_rng(0)
    for label in classes:
        (folder / label).mkdir(parents=True)
        for i in range(images):
            Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / label / f"{i}.png")
    return folder
