"""Data sets that need no download: scikit-learn's digits and Debian's Fashion-MNIST."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
FASHION_MNIST_LABELS = [
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
]  # fmt: skip


def load_digits() -> dict[str, Dataset]:
    """Return scikit-learn's handwritten digits (UCI, 8x8 pixels of 17 gray levels) as 8-bit images."""
    from sklearn import datasets

    digits: Any = datasets.load_digits()
    images = (digits.images * (255 / 16)).astype(np.uint8)
    return {"train": _gray_images(images, digits.target, [str(n) for n in digits.target_names])}


def load_fashion_mnist() -> dict[str, Dataset]:
    """Return Fashion-MNIST (Zalando, 28x28 gray pixels, 60000 to train and 10000 to test), from Debian's package."""
    if not FASHION_MNIST.is_dir():
        raise ValueError(
            f"--dataset fashion-mnist: {FASHION_MNIST} is not there; install it: apt-get install dataset-fashion-mnist"
        )

    def read(file: str, header: int) -> np.ndarray:
        with gzip.open(FASHION_MNIST / file) as opened:
            return np.frombuffer(opened.read(), np.uint8, offset=header)

    splits = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read(f"{prefix}-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28)
        splits[split] = _gray_images(images, read(f"{prefix}-labels-idx1-ubyte.gz", header=8), FASHION_MNIST_LABELS)
    return splits


def _gray_images(images: np.ndarray, labels: np.ndarray, names: list[str]) -> Dataset:
    """Return `(images, height, width)` bytes as a data set, kept as PGM files: those need no compression."""
    header = b"P5 %d %d 255\n" % images.shape[:0:-1]
    column = [{"bytes": header + image.tobytes(), "path": None} for image in images]
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"image": column, "label": labels.tolist()}, features)


BUILT_IN = {"digits": load_digits, "fashion-mnist": load_fashion_mnist}
