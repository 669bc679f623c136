"""What a network looks at in images, from the options of `sk-transformers explain` to a folder of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers.utils import logging as transformers_logging

from ..data.decoding import UnreadableImage, decode
from ..demo.dense import padded
from ..demo.mechanism import (
    Network,
    as_seen,
    cuts_windows,
    has_stages,
    key_stride_of,
    load_network,
    rollout_of,
    run_below_head,
    watch,
)
from ..errors import first_line
from ..evaluation.attention_quantities import Interactions, attention_entropy, interactions
from ..evaluation.grad_cam import grad_cam
from ..files import whole_folder, write_json
from ..pretrained import class_names, class_probabilities, source_of
from ..provenance import provenance

MAX_IMAGES = 64  # whose weights are held at once


@dataclass
class AttendingLayer:
    """A layer that attends, and its weights for the images, `(images, heads, queries, keys)`.

    Where it cuts maps into windows, they are those of the mean window. `grid_size` is `(rows, columns)` of positions.
    """

    name: str
    mixer: Any
    weights: torch.Tensor
    grid_size: tuple[int, int]

    @property
    def key_stride(self) -> int:
        """Positions between keys, along rows and columns."""
        return key_stride_of(self.mixer)

    @property
    def num_class_tokens(self) -> int:
        """Tokens before the positions."""
        return getattr(self.mixer, "num_class_tokens", 0)

    @property
    def interactions(self) -> Interactions:
        """Where its positions look."""
        return interactions(self.weights, self.grid_size, self.num_class_tokens, self.key_stride)


@dataclass
class Explanation:
    """What was found of a network in some images.

    Args:
        images: as the network saw them.
        layers: those that attend, first layer first.
        answers: the label and the probability of the likeliest class of each image; empty without a classifier.
        rollout: `(images, rows, columns)` of the class token or, where there is none, the mean position; None where
            layers attend among different tokens, and of a segmenter or detector.
        class_maps: of a classifier with stages, Grad-CAM of the stem and of each stage whose map reaches the answer,
            `(images, height, width)`.
    """

    images: list[Image.Image]
    layers: list[AttendingLayer]
    answers: list[tuple[str, float]] = field(default_factory=list)
    rollout: torch.Tensor | None = None
    class_maps: list[torch.Tensor] = field(default_factory=list)


def explain(model: str, files: Sequence[str], output_dir: str, fusion: str = "mean", discard: float = 0.0) -> Path:
    """Write pictures of what a network looks at, and `explanation.json`.

    Args:
        model: a repo folder, a Hub id or the name of a trained network of the zoo.
        files: images.
        output_dir: a folder, new or empty.
        fusion: how rollout fuses heads: mean, max or min.
        discard: fraction of the smallest weights of a layer that rollout leaves out.

    Returns:
        The folder.

    Raises:
        ValueError: if the model cannot be loaded or does not attend, or an image cannot be read.
        FileExistsError: if the folder holds something.
    """
    from .drawing import draw_explanation  # matplotlib

    transformers_logging.disable_progress_bar()
    pictures = read_images(files)
    with whole_folder(output_dir) as partial:
        network = load_network(source_of(model))
        explanation = look_into(network, pictures, fusion, discard)
        draw_explanation(explanation, [Path(file).stem for file in files], partial)
        write_json(to_json(explanation, network.name, files), partial / "explanation.json")
    return Path(output_dir)


def read_images(files: Sequence[str]) -> list[Image.Image]:
    """Return the decoded images; ValueError names one that cannot be read, or says that there are too many."""
    if len(files) > MAX_IMAGES:
        raise ValueError(f"{len(files)} images were given, expected at most {MAX_IMAGES}: choose some of them.")
    images = []
    for name in files:
        try:
            with open(name, "rb") as file:
                images.append(decode(file))
        except (UnreadableImage, OSError) as error:
            raise ValueError(f"{name} cannot be read as an image: {first_line(error)}") from error
    return images


def look_into(
    network: Network, images: Sequence[Image.Image], fusion: str = "mean", discard: float = 0.0
) -> Explanation:
    """Return what a network attends to in images, at the size that its image processor makes them.

    A segmenter or detector runs without its head.
    """
    if not network.mixers:
        raise ValueError(f"model {network.name} has no layer that attends: there is nothing to explain.")
    processed = network.image_processor([image.convert("RGB") for image in images], return_tensors="pt")
    pixel_values = padded(network.model, processed.pixel_values) if network.is_dense else processed.pixel_values
    with torch.inference_mode(), watch(network) as (grids, _):
        if network.is_dense:
            outputs = run_below_head(network, pixel_values)
        else:
            outputs = network.model(pixel_values, output_attentions=True)
    names = {module: name for name, module in network.model.named_modules()}
    layers = [
        AttendingLayer(
            layer_name(names[mixer]),
            mixer,
            weights.float().unflatten(0, (len(images), -1)).mean(dim=1),
            tuple(mixer.grid_size) if cuts_windows(mixer, grids[mixer]) else grids[mixer],
        )
        for mixer, weights in zip(network.mixers, outputs.attentions)
    ]
    explanation = Explanation([as_seen(network, pixels) for pixels in pixel_values], layers)
    if not network.is_dense:  # whose places have answers of their own
        explanation.rollout = rollout_of(network, outputs.attentions, fusion, discard)
    if "logits" in outputs:
        config = network.model.config
        confidence, classes = class_probabilities(outputs.logits.float(), config).max(dim=-1)
        labels = class_names(config)
        explanation.answers = [
            (labels[number], chance) for number, chance in zip(classes.tolist(), confidence.tolist())
        ]
        if has_stages(network.model):
            explanation.class_maps = grad_cam(network.model, pixel_values, classes)
    return explanation


def layer_name(module: str) -> str:
    """Return `"stage 2, layer 1"` of `skformer.stages.1.layers.0.mixer`, and of a network without stages the layer."""
    parts = module.split(".")
    numbers = {unit: int(parts[parts.index(f"{unit}s") + 1]) + 1 for unit in ("stage", "layer") if f"{unit}s" in parts}
    return ", ".join(f"{unit} {number}" for unit, number in numbers.items())


def to_json(explanation: Explanation, model: str, files: Sequence[str]) -> dict[str, Any]:
    """Return the numbers: of each layer and head over the images, in nats and in positions of the layer's grid."""
    layers = []
    for layer in explanation.layers:
        seen = layer.interactions
        layers.append(
            {
                "layer": layer.name,
                "grid": list(layer.grid_size),
                "entropy_of_heads": attention_entropy(layer.weights).mean(dim=(0, 2)).tolist(),
                "largest_entropy": float(torch.tensor(layer.weights.shape[-1]).log()),
                "arrow_length": seen.arrows.norm(dim=1).mean().item(),
                "field_size": seen.sizes.mean().item(),
                "spread_over_heads": seen.spread_over_heads.mean().item(),
                # of one image there is none
                "spread_over_images": seen.spread_over_images.mean().item() if len(layer.weights) > 1 else None,
            }
        )
    answers = explanation.answers or [None] * len(files)
    images = [
        {"file": Path(file).name, **({"label": answer[0], "probability": answer[1]} if answer else {})}
        for file, answer in zip(files, answers)
    ]
    return {"model": model, "provenance": provenance(), "images": images, "layers": layers}
