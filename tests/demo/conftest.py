"""Small networks, and digits to show them."""

import pytest
from PIL import Image
from transformers import ViTImageProcessor

from sk_transformers.hub import export

from ..support.small_models import small_model

LABELS = {i: str(i) for i in range(10)}
PROCESSOR = ViTImageProcessor(size={"height": 32, "width": 32})


@pytest.fixture(scope="session")
def repos(tmp_path_factory):
    """Repo folders of one network for each mechanism, on a grid of 4x4."""
    folder = tmp_path_factory.mktemp("repos")
    return [
        export(
            small_model(name, image_size=32, patch_size=8, num_labels=10, id2label=LABELS,
                        label2id={label: i for i, label in LABELS.items()}),
            PROCESSOR, folder / name,
        )
        for name in ("skvit", "cskvit", "vit")
    ]  # fmt: skip


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Two handwritten digits of 32x32 pixels, as files."""
    from sklearn.datasets import load_digits

    folder, data = tmp_path_factory.mktemp("digits"), load_digits()
    paths = []
    for index in (3, 7):
        image = Image.fromarray((data.images[index] * 255 / 16).astype("uint8")).resize((32, 32)).convert("RGB")
        image.save(folder / f"{data.target[index]}.png")
        paths.append(folder / f"{data.target[index]}.png")
    return paths
