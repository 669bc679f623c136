"""What there is to see inside a network: what each position attends to, and the keys that it compares its query with.

The modules are found by what they have and not by their class, which in a repo loaded with its own code is not this
package's. In a Space, which has no package, lie copies of the files that this one imports.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    PreTrainedModel,
)

from ..evaluation.attention_quantities import attention_entropy, rollout_of_positions
from ..evaluation.grad_cam import grad_cam
from .dense import Scene, padded, scene_of

MIN_SIDE = 4  # positions of a map that still shows places
MAX_WEIGHTS = 1 << 28  # of a segmenter or detector, whose images may be large: a gigabyte in all layers
IN_WINDOWS = "attends within windows of this image, which have no map of the whole to show."
HEADS = {  # what opens a network, by the end of its class's name
    "ForImageClassification": AutoModelForImageClassification,
    "ForSemanticSegmentation": AutoModelForSemanticSegmentation,
    "ForObjectDetection": AutoModelForObjectDetection,
}
MECHANISMS = {
    "static_key": "Static keys (SKA)",
    "conv_static_key": "Convolutional (CSKA)",
    "static_map": "Static map",
    "conv_key": "Convolved keys",
    "attention": "Attention",
}


@dataclass
class Network:
    """A network with its image processor, and what the page calls it: with any head of this project or without."""

    name: str
    mechanism: str
    model: PreTrainedModel
    image_processor: Any  # of transformers, with a mean and a standard deviation

    @property
    def mixers(self) -> list[Any]:
        """The modules that attend, first layer first; their class is not known, what they have is."""
        return [module for module in self.model.modules() if hasattr(module, "v_proj") and hasattr(module, "grid_size")]

    @property
    def is_dense(self) -> bool:
        """Whether it is a segmenter or a detector, which answers at each place."""
        return hasattr(self.model, "upernet") or hasattr(self.model, "mask_rcnn")

    @property
    def has_maps(self) -> bool:
        """Whether positions attend to the whole image."""
        return bool(self.mixers) and not hasattr(self.model.config, "window_size")


@dataclass
class Layer:
    """What one layer did with one image; the tokens are those of the grid, class tokens first if there are any.

    Args:
        grid_size: `(rows, columns)` of the grid.
        num_class_tokens: tokens before those of the grid.
        attention: the weights, `(heads, queries, keys)`: rows are queries.
        keys: `(heads, positions of keys, channels)`.
        key_is_static: whether the keys are parameters, and not computed from the image.
        key_stride: positions between keys, along rows and columns.
        own_grid_size: of static keys that were made for another grid than this image's, `(rows, columns)`.
    """

    grid_size: tuple[int, int]
    num_class_tokens: int
    attention: np.ndarray
    keys: np.ndarray
    key_is_static: bool
    key_stride: int = 1
    own_grid_size: tuple[int, int] | None = None

    @property
    def key_grid_size(self) -> tuple[int, int]:
        """`(rows, columns)` of the grid that keys lie on: `strided_size` of `models/grids.py`, which no Space has."""
        rows, columns = (-(-side // self.key_stride) for side in self.grid_size)
        return rows, columns

    def head(self, weights: np.ndarray, head: int) -> np.ndarray:
        """Return the weights of one head, counted from 1, or with 0 the mean over all heads."""
        return weights.mean(axis=0) if head == 0 else weights[min(head, len(weights)) - 1]

    def entropy(self, head: int) -> float:
        """Return how wide a head looks, in nats: the mean entropy of its queries' weights, with head 0 of all heads."""
        weights = self.attention if head == 0 else self.head(self.attention, head)
        return attention_entropy(torch.from_numpy(weights)).mean().item()

    def weights_of_position(self, head: int, row: int, column: int) -> tuple[np.ndarray, float]:
        """Return the attention weights of the query at `row` and `column`, counted from 0.

        Returns:
            The weights on the grid of keys, `(rows, columns)`, and the sum of those on the class tokens.
        """
        return self._weights_of(head, self.num_class_tokens + row * self.grid_size[1] + column)

    def weights_of_class_token(self, head: int) -> tuple[np.ndarray, float]:
        """Return the same for the class token; there must be one."""
        return self._weights_of(head, 0)

    def _weights_of(self, head: int, token: int) -> tuple[np.ndarray, float]:
        weights = self.head(self.attention, head)[token].astype(np.float32)
        first = self.num_class_tokens
        return weights[first:].reshape(self.key_grid_size), float(weights[:first].sum())

    def key_colors(self, head: int) -> np.ndarray:
        """Return a head's keys as colors, `(rows, columns, 3)` of 0 to 1, on their grid.

        The colors are the first three principal components over the positions: similar colors are similar keys. With
        head 0 the keys of all heads are concatenated.
        """
        keys = np.concatenate(self.keys, axis=1) if head == 0 else self.keys[min(head, len(self.keys)) - 1]
        return principal_colors(keys).reshape(*(self.own_grid_size or self.key_grid_size), 3)


@dataclass
class Evidence:
    """Which positions reach the answer, by the method that the title names: `(rows, columns)`, none below 0."""

    title: str
    map: np.ndarray


@dataclass
class Reading:
    """A network's pass over an image: what it makes of it, the image as preprocessed, and what each layer did.

    Args:
        probabilities: of a classifier, by label.
        features: of a network without one, `(channels,)`.
        evidence: None where no method takes the network.
        scene: what a segmenter or detector says.
        no_maps: why there are no layers, as a sentence of what comes after the network's name; empty where there are.
    """

    probabilities: dict[str, float]
    features: np.ndarray | None
    seen: Image.Image
    layers: list[Layer]
    evidence: Evidence | None
    scene: Scene | None = None
    no_maps: str = ""


def load_network(repo: str | Path, name: str | None = None, trust_remote_code: bool = False) -> Network:
    """Return a classifier, segmenter or detector, or a network that makes features, from a repo folder or a Hub id.

    Args:
        repo: the folder or id.
        name: what the page calls it; the folder's name when None, or the run's for the folder `model` of a run.
        trust_remote_code: run the code in the repo, which is needed where this package is not installed.

    Raises:
        ValueError: if it cannot be loaded, or no layer of it attends and it is no segmenter or detector.
    """
    try:
        config = AutoConfig.from_pretrained(repo, trust_remote_code=trust_remote_code)
        architecture = (config.architectures or [""])[0]
        if not hasattr(config, "token_mixers"):
            raise ValueError(f"it is a {architecture or config.model_type}, and no network of this project.")
        auto_class = next((HEADS[ending] for ending in HEADS if architecture.endswith(ending)), AutoModel)
        model, report = auto_class.from_pretrained(repo, trust_remote_code=trust_remote_code, output_loading_info=True)
        image_processor = AutoImageProcessor.from_pretrained(repo)
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"model {repo} could not be loaded: {reason}") from error
    if report["missing_keys"]:
        raise ValueError(f"model {repo} is not a trained network: its weights lack {min(report['missing_keys'])}.")
    names = [name for name in MECHANISMS if name in getattr(model.config, "token_mixers", ())]
    path = Path(repo)
    name = name or (path.parent.name if path.name == "model" else path.name)
    mechanism = " and ".join(MECHANISMS[n] for n in names) or "Without attention"
    network = Network(name, mechanism, model.float().eval(), image_processor)
    if not network.mixers and not network.is_dense:
        raise ValueError(f"model {repo} has no layer that attends: there is nothing to show.")
    return network


def check_maps(network: Network) -> None:
    """Raise ValueError if a network has nothing to show: positions of a classifier that attend to less than the image.

    A segmenter or detector of that kind has its answer to show.
    """
    if not network.has_maps and not network.is_dense:
        raise ValueError(
            f"model {network.name} attends within windows, which have no map of the whole image to show: choose"
            " networks whose layers attend to all positions."
        )


@torch.no_grad()
def read(network: Network, image: Image.Image) -> Reading:
    """Run a network on an image and return what its layers did."""
    image = image.convert("RGB")
    inputs = network.image_processor(image, return_tensors="pt")
    if network.is_dense:
        return read_dense(network, inputs, image)
    pixel_values = inputs.pixel_values
    with watch(network) as (grids, keys):
        outputs = network.model(pixel_values, output_attentions=True)
    probabilities, features = {}, None
    if "logits" in outputs:
        probabilities = class_probabilities(outputs.logits[0].float(), network.model.config)
    else:
        features = outputs.pooler_output[0].float().numpy()
    no_maps = IN_WINDOWS if attends_in_windows(network, grids) else ""
    layers = [] if no_maps else read_layers(network, outputs.attentions, grids, keys)
    evidence, seen = evidence_of(network, pixel_values, outputs), as_seen(network, pixel_values[0])
    return Reading(probabilities, features, seen, layers, evidence, no_maps=no_maps)


def read_dense(network: Network, inputs: Any, image: Image.Image) -> Reading:
    """Return what a segmenter or detector says of an image, and what the layers below its head did.

    The weights take a second pass, of the network without its head: whether they can be held is known after the first.
    """
    with watch(network) as (grids, _):
        scene = scene_of(network.model, inputs, image)
    pixel_values = padded(network.model, inputs.pixel_values)
    no_maps = why_no_maps(network, grids)
    layers = []
    if not no_maps:
        with watch(network) as (grids, keys):
            outputs = run_below_head(network, pixel_values)
        layers = read_layers(network, outputs.attentions, grids, keys)
    return Reading({}, None, as_seen(network, pixel_values[0]), layers, None, scene, no_maps)


def run_below_head(network: Network, pixel_values: torch.Tensor) -> Any:
    """Return what a segmenter or detector does without its head, with attention weights, of images that are padded."""
    options = {} if has_stages(network.model) else {"interpolate_pos_encoding": True}
    return network.model.base_model(pixel_values, output_attentions=True, **options)


def why_no_maps(network: Network, grids: dict[Any, tuple[int, int]]) -> str:
    """Return why an image on these grids has no maps to show, as what a network does; nothing where it has."""
    if not network.mixers:
        return "has no layer that attends."
    if attends_in_windows(network, grids):
        return IN_WINDOWS
    weights = sum(
        mixer.options.num_heads * (rows * columns) ** 2 // key_stride_of(mixer) ** 2
        for mixer, (rows, columns) in grids.items()
    )
    if weights > MAX_WEIGHTS:
        return f"has {weights / 1e6:.0f} million attention weights for an image of this size, too many to show."
    return ""


def attends_in_windows(network: Network, grids: dict[Any, tuple[int, int]]) -> bool:
    """Return whether any layer cuts an image on these grids into windows."""
    return not network.has_maps or any(cuts_windows(mixer, grid) for mixer, grid in grids.items())


def cuts_windows(mixer: Any, grid_size: tuple[int, int]) -> bool:
    """Return whether a layer cuts a map of this size into windows of its own grid's, as static keys can be told to."""
    is_static = maker_of_keys(mixer) is None
    in_windows = getattr(mixer.options, "static_key_resolution", "") == "window"
    return is_static and in_windows and grid_size != tuple(mixer.grid_size)


@contextmanager
def watch(network: Network) -> Iterator[tuple[dict[Any, tuple[int, int]], dict[nn.Module, torch.Tensor]]]:
    """Yield what a pass of the network fills: the grid of each layer that attends, and what makes keys made."""
    grids: dict[Any, tuple[int, int]] = {}
    computed_keys: dict[nn.Module, torch.Tensor] = {}

    def keep_grid(mixer: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        given = options.get("grid_size", inputs[1] if len(inputs) > 1 else None)
        grids[mixer] = tuple(given if isinstance(given, Sequence) else mixer.grid_size)

    def keep_keys(module: nn.Module, _: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        computed_keys[module] = output if output.dim() == 3 else output.flatten(2).mT  # a convolution makes a map

    mixers = network.mixers
    makers = [maker for mixer in mixers if (maker := maker_of_keys(mixer)) is not None]
    hooks = [mixer.register_forward_pre_hook(keep_grid, with_kwargs=True) for mixer in mixers]
    hooks += [maker.register_forward_hook(keep_keys) for maker in makers]
    try:
        yield grids, computed_keys
    finally:
        for hook in hooks:
            hook.remove()


def evidence_of(network: Network, pixel_values: torch.Tensor, outputs: Any) -> Evidence | None:
    """Return the attention rollout of one image, or of a classifier of stages the Grad-CAM of the last that has places.

    Grad-CAM takes a pass more, forward and backward.
    """
    rollout = rollout_of(network, outputs.attentions)
    if rollout is not None:
        return Evidence("Attention rollout", rollout[0].float().numpy())
    if "logits" not in outputs or not has_stages(network.model):
        return None
    answer = outputs.logits.argmax(dim=-1)
    maps = [one[0].float().numpy() for one in grad_cam(network.model, pixel_values, answer)]
    stage = max((number for number, one in enumerate(maps) if min(one.shape) >= MIN_SIDE), default=0)
    name = f"stage {stage}" if stage else "the stem"
    label: Any = network.model.config.id2label
    return Evidence(f"Grad-CAM of {label[answer.item()]}, {name}", maps[stage])


def rollout_of(
    network: Network, attentions: Sequence[torch.Tensor], fusion: str = "mean", discard: float = 0.0
) -> torch.Tensor | None:
    """Return the attention rollout of images, `(images, rows, columns)`; None of a network of stages.

    Args:
        network: whose layers attended.
        attentions: their weights, `(images, heads, tokens, tokens)`.
        fusion, discard: see `attention_rollout`.
    """
    if has_stages(network.model):  # whose layers have other tokens
        return None
    first = network.mixers[0]
    attentions = attentions[: len(network.mixers)]  # those of class tokens alone, as CaiT's, come after
    return rollout_of_positions(attentions, first.grid_size, getattr(first, "num_class_tokens", 0), fusion, discard)


def has_stages(model: PreTrainedModel) -> bool:
    """Return whether hidden states are maps of stages."""
    return hasattr(model.config, "depths")


def class_probabilities(logits: torch.Tensor, config: Any) -> dict[str, float]:
    """Return the probability of each label, of logits `(classes,)`."""
    several_labels = config.problem_type == "multi_label_classification" or config.num_labels == 1
    values = (logits.sigmoid() if several_labels else logits.softmax(dim=0)).tolist()
    return {config.id2label[number]: value for number, value in enumerate(values)}


def read_layers(
    network: Network,
    attentions: Sequence[torch.Tensor],
    grids: dict[Any, tuple[int, int]],
    computed_keys: dict[nn.Module, torch.Tensor],
) -> list[Layer]:
    """Return what each layer that attends did with one image, of the weights and of what `watch` yields."""
    return [
        read_layer(mixer, weights[0], grids[mixer], computed_keys) for mixer, weights in zip(network.mixers, attentions)
    ]


def read_layer(
    mixer: Any, weights: torch.Tensor, grid_size: tuple[int, int], computed_keys: dict[nn.Module, torch.Tensor]
) -> Layer:
    """Return a layer's weights and keys, from its module and the `(batch, keys, channels)` that hooks kept."""
    first, maker = getattr(mixer, "num_class_tokens", 0), maker_of_keys(mixer)
    own_grid_size = None
    if maker is not None:
        keys = computed_keys[maker][0].unflatten(-1, (len(weights), -1)).transpose(0, 1)
    elif hasattr(mixer, "key"):
        keys, own_grid_size = mixer.key, getattr(mixer, "key_grid_size", mixer.grid_size)
    else:  # of a static map: its columns, of which a query selects one entry
        keys, own_grid_size = mixer.attention_bias(mixer.grid_size).mT, mixer.grid_size
    half = np.float16  # the page's state keeps them: a large network has hundreds of maps
    return Layer(
        grid_size,
        first,
        weights.float().numpy().astype(half),
        keys[:, first:].float().numpy().astype(half),
        key_is_static=maker is None,
        key_stride=key_stride_of(mixer),
        own_grid_size=None if own_grid_size is None else tuple(own_grid_size),
    )


def maker_of_keys(mixer: Any) -> nn.Module | None:
    """Return the module whose output a layer's keys are, None where they are parameters."""
    return getattr(mixer, "k_proj", None) or getattr(mixer, "key_conv", None)


def key_stride_of(mixer: Any) -> int:
    """Return how many positions lie between a layer's keys; the code of older repos knows no strides."""
    return getattr(mixer.options, "key_stride", 1)


def as_seen(network: Network, pixels: torch.Tensor) -> Image.Image:
    """Return the image that normalized `(channels, height, width)` pixels were made from."""
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (network.image_processor.image_mean, network.image_processor.image_std)
    )
    values = ((pixels * std + mean) * 255).round().clamp(0, 255)
    return Image.fromarray(values.permute(1, 2, 0).numpy().astype(np.uint8))


def principal_colors(rows: np.ndarray) -> np.ndarray:
    """Return the first three principal components of `(positions, channels)`, each scaled to 0 to 1."""
    centered = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    components, strengths, _ = np.linalg.svd(centered, full_matrices=False)
    kept = np.zeros((len(rows), 3))
    count = min(3, components.shape[1])
    kept[:, :count] = components[:, :count] * strengths[:count]
    kept *= np.where(np.abs(kept).max(axis=0) == kept.max(axis=0), 1, -1)  # the sign is arbitrary, and must not flicker
    low, high = kept.min(axis=0), kept.max(axis=0)
    return (kept - low) / np.where(high > low, high - low, 1)
