"""Images and masks to train segmenters on: a bright square on a dark ground, the first rows without a class."""

import numpy as np
from datasets import Dataset, Features, Image
from PIL import Image as PILImage

from sk_transformers.data.masks import IGNORED

CLASSES = ["ground", "square"]


def draw_pairs(count, seed=0, noise=60):
    """Arrays of images and masks, of two sizes in turn."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        height, width = ((40, 56), (48, 40))[number % 2]
        mask = np.zeros((height, width), np.uint8)
        row, column = rng.integers(4, height - 18), rng.integers(0, width - 18)
        mask[row : row + 18, column : column + 18] = 1
        mask[:4] = IGNORED
        image = rng.integers(0, noise, (height, width, 3), dtype=np.uint8) + np.uint8(160) * (mask == 1)[..., None]
        yield image.astype(np.uint8), mask


def write_pairs(root, images="{split}/images", masks="{split}/masks", counts=(("train", 12), ("val", 5))):
    """Folders of them, by patterns of folders' names."""
    for seed, (split, count) in enumerate(counts):
        for number, (image, mask) in enumerate(draw_pairs(count, seed)):
            for pattern, array in ((images, image), (masks, mask)):
                file = root / pattern.format(split=split) / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                PILImage.fromarray(array).save(file)
    return root


def pairs_as_parquet(folder, file, column="annotation", change=lambda mask: mask):
    """The pairs of a folder of `images` and `masks` as a parquet file."""
    rows = {"image": [], column: []}
    for image in sorted((folder / "images").iterdir()):
        rows["image"].append(PILImage.open(image))
        rows[column].append(PILImage.fromarray(change(np.asarray(PILImage.open(folder / "masks" / image.name)))))
    Dataset.from_dict(rows, Features({"image": Image(), column: Image()})).to_parquet(str(file))
    return file
