"""What there is to see inside a network: where each position looks, and the keys that it looks by.

The modules are found by what they have and not by their class, which in a repo loaded with its own code is not this
package's. Nothing of this package is imported: in a Space it is not installed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

MECHANISMS = {
    "static_key": "Static keys (SKA)",
    "conv_static_key": "Convolutional (CSKA)",
    "attention": "Attention",
}


@dataclass
class Network:
    """A classifier, and what the page calls it."""

    name: str
    mechanism: str
    model: PreTrainedModel
    processor: BaseImageProcessor

    @property
    def mixers(self) -> list[nn.Module]:
        """The modules that attend, first layer first."""
        return [module for module in self.model.modules() if hasattr(module, "v_proj") and hasattr(module, "o_proj")]


@dataclass
class Layer:
    """What one layer did with one image; the tokens are those of the grid, class tokens first if there are any.

    Args:
        grid_size: `(rows, columns)` of the grid.
        num_class_tokens: tokens before those of the grid.
        attention: `(heads, tokens, tokens)`, the weights; a row is one that looks.
        keys: `(heads, rows * columns, channels)`.
        key_is_static: whether the keys are parameters, and not computed from the image.
    """

    grid_size: tuple[int, int]
    num_class_tokens: int
    attention: np.ndarray
    keys: np.ndarray
    key_is_static: bool

    def head(self, weights: np.ndarray, head: int) -> np.ndarray:
        """One head's part of `weights`, counted from 1, or with 0 the mean over all."""
        return weights.mean(axis=0) if head == 0 else weights[min(head, len(weights)) - 1]

    def looks_at(self, head: int, row: int, column: int) -> tuple[np.ndarray, float]:
        """Where the token at `row` and `column`, counted from 0, looks.

        Returns:
            The weights on the grid, `(rows, columns)`, and what the class tokens get.
        """
        return self._weights_of(head, self.num_class_tokens + row * self.grid_size[1] + column)

    def class_token_looks_at(self, head: int) -> tuple[np.ndarray, float]:
        """The same for the class token; there must be one."""
        return self._weights_of(head, 0)

    def _weights_of(self, head: int, token: int) -> tuple[np.ndarray, float]:
        weights = self.head(self.attention, head)[token].astype(np.float32)
        first = self.num_class_tokens
        return weights[first:].reshape(self.grid_size), float(weights[:first].sum())

    def key_colors(self, head: int) -> np.ndarray:
        """A head's keys as a picture, `(rows, columns, 3)` of 0 to 1.

        Its colours are the first three principal components over the positions: alike in colour is alike in key. With
        head 0 the keys of all heads are joined.
        """
        keys = np.concatenate(self.keys, axis=1) if head == 0 else self.keys[min(head, len(self.keys)) - 1]
        return principal_colors(keys).reshape(*self.grid_size, 3)


@dataclass
class Reading:
    """What a network made of an image: probabilities by label, the image as it saw it, and its layers."""

    probabilities: dict[str, float]
    seen: Image.Image
    layers: list[Layer]


def load_network(repo: str | Path, name: str | None = None, trust_remote_code: bool = False) -> Network:
    """A classifier from a repo folder or a Hub id.

    Args:
        repo: the folder or id.
        name: what the page calls it; the folder's name when None, or the run's for the folder `model` of a run.
        trust_remote_code: run the code in the repo, which is needed where this package is not installed.

    Raises:
        ValueError: if it cannot be loaded, or no layer of it attends.
    """
    try:
        model, report = AutoModelForImageClassification.from_pretrained(
            repo, trust_remote_code=trust_remote_code, output_loading_info=True
        )
        processor = AutoImageProcessor.from_pretrained(repo)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"model {repo} could not be loaded: {str(error).strip().splitlines()[0]}") from error
    if report["missing_keys"]:
        raise ValueError(f"model {repo} is no trained classifier, its weights lack {min(report['missing_keys'])}.")
    names = [name for name in MECHANISMS if name in getattr(model.config, "token_mixers", ())]
    path = Path(repo)
    name = name or (path.parent.name if path.name == "model" else path.name)
    network = Network(name, " and ".join(MECHANISMS[n] for n in names), model.eval(), processor)
    if not network.mixers or not names:
        raise ValueError(f"model {repo} has no layer that attends: there is nothing to show.")
    return network


@torch.inference_mode()
def read(network: Network, image: Image.Image) -> Reading:
    """Run a network on an image and keep what its layers did."""
    pixel_values = network.processor(image.convert("RGB"), return_tensors="pt").pixel_values
    computed_keys: dict[nn.Module, torch.Tensor] = {}

    def keep(projection, _, output):
        computed_keys[projection] = output

    hooks = [m.k_proj.register_forward_hook(keep) for m in network.mixers if hasattr(m, "k_proj")]
    try:
        outputs = network.model(pixel_values, output_attentions=True)
    finally:
        for hook in hooks:
            hook.remove()
    probabilities = outputs.logits[0].float().softmax(dim=0).tolist()
    layers = [
        read_layer(mixer, weights[0], computed_keys) for mixer, weights in zip(network.mixers, outputs.attentions)
    ]
    labels = network.model.config.id2label
    return Reading({labels[i]: p for i, p in enumerate(probabilities)}, as_seen(network, pixel_values[0]), layers)


def read_layer(mixer: nn.Module, weights: torch.Tensor, computed_keys: dict[nn.Module, torch.Tensor]) -> Layer:
    """A layer's grid, weights and keys, out of its module and what hooks kept."""
    first = getattr(mixer, "num_class_tokens", 0)
    if hasattr(mixer, "k_proj"):
        keys = computed_keys[mixer.k_proj][0].unflatten(-1, (mixer.num_heads, -1)).transpose(0, 1)
    else:
        keys = mixer.key
    half = np.float16  # for a page's state: a large network has hundreds of maps
    return Layer(
        tuple(mixer.grid_size),
        first,
        weights.float().numpy().astype(half),
        keys[:, first:].float().numpy().astype(half),
        key_is_static=not hasattr(mixer, "k_proj"),
    )


def as_seen(network: Network, pixels: torch.Tensor) -> Image.Image:
    """The image that normalized `(channels, height, width)` pixels were made from."""
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (network.processor.image_mean, network.processor.image_std)
    )
    values = ((pixels * std + mean) * 255).round().clamp(0, 255)
    return Image.fromarray(values.permute(1, 2, 0).numpy().astype(np.uint8))


def principal_colors(rows: np.ndarray) -> np.ndarray:
    """`(positions, channels)` as `(positions, 3)` of 0 to 1: the first three principal components, each spread out."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    components, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    kept = np.zeros((len(rows), 3))
    count = min(3, components.shape[1])
    kept[:, :count] = components[:, :count] * strengths[:count]
    kept *= np.where(np.abs(kept).max(axis=0) == kept.max(axis=0), 1, -1)  # the sign is arbitrary, and must not flicker
    low, high = kept.min(axis=0), kept.max(axis=0)
    return (kept - low) / np.where(high > low, high - low, 1)
