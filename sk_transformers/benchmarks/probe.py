"""A linear probe: how well classes can be told from what a network makes of images, by a linear classifier."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from ..data.labeled import load_data
from ..data.loaders import eval_loader, is_readable
from ..data.options import DataOptions
from ..data.transforms import eval_transform
from ..pretrained import load_base_model, resize

BATCH_SIZE = 32
DECAY = 1e-3  # of the classifier's weights, beside the mean cross-entropy on standardized features


@dataclass(frozen=True)
class Probe:
    """The accuracy of a linear classifier on a network's patch tokens, averaged over each image.

    Args:
        network: its name.
        train_images, test_images: how many the classifier learned from and was tried on.
        top1: the fraction of the latter that it got right.
    """

    network: str
    train_images: int
    test_images: int
    top1: float


def measure_probes(
    names: Sequence[str], data_options: DataOptions, train_images: int, test_images: int, image_size: int | None = None
) -> Iterator[Probe]:
    """Yield a probe of each network, on the same images of a labelled data set, drawn at random.

    Args:
        names: folders or Hub ids of Vision Transformers.
        data_options: the data set.
        train_images, test_images: at most so many are used.
        image_size: pixels a side; the networks' own when None.
    """
    data = load_data(data_options)
    splits: list[tuple[Any, int]] = [(data.train, train_images), (data.validation, test_images)]  # no streams
    order = np.random.default_rng(0)
    chosen = [images.select(order.permutation(len(images))[:count]) for images, count in splits]
    for name in names:
        model, processor = load_base_model(name)
        if image_size is not None and model.config.image_size != image_size:
            model, processor = resize(model, processor, image_size)
        transform = eval_transform(processor)
        loaders = [eval_loader(images, transform, BATCH_SIZE, 0, False) for images in chosen]
        (features, labels), (held_out, truth) = (patch_means(model.float().eval(), loader) for loader in loaders)
        top1 = accuracy_of_probe(features, labels, held_out, truth)
        yield Probe(Path(name).name, len(labels), len(truth), round(top1, 4))


@torch.no_grad()
def patch_means(model: PreTrainedModel, loader: DataLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean of an image's patch tokens, `(images, channels)`, and the images' labels."""
    features, labels = [], []
    config: Any = model.config
    for batch in loader:
        readable = is_readable(batch["labels"])
        tokens = model(batch["pixel_values"][readable]).last_hidden_state
        features.append(tokens[:, config.num_prefix_tokens :].mean(dim=1))
        labels.append(batch["labels"][readable])
    return torch.cat(features), torch.cat(labels)


def accuracy_of_probe(
    features: torch.Tensor, labels: torch.Tensor, held_out: torch.Tensor, truth: torch.Tensor
) -> float:
    """Return the accuracy on held-out features of a logistic regression on standardized features."""
    inverse_decay = 1 / (2 * DECAY * len(labels))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_decay, max_iter=1000))
    return float(probe.fit(features.numpy(), labels.numpy()).score(held_out.numpy(), truth.numpy()))


def to_table(probes: Sequence[Probe]) -> str:
    """Return a row for each network."""
    lines = ["| network | linear probe, top-1 |", "| --- | ---: |"]
    return "\n".join([*lines, *(f"| {probe.network} | {probe.top1:.2%} |" for probe in probes)])
