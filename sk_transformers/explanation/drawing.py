"""The pictures of an explanation."""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch.nn import functional as F

from ..demo.mechanism import principal_colors
from ..evaluation.attention_quantities import attention_entropy
from ..evaluation.fonts import fonts_for
from ..files import save_figure
from ..models.grids import strided_size
from .run import AttendingLayer, Explanation

matplotlib.use("agg")
COLUMNS = 4  # layers beside each other
MAX_ARROWS = 14  # a side: more cannot be told apart
MIN_PIXELS = 224  # a side of a picture that maps are drawn over


def draw_explanation(explanation: Explanation, names: list[str], folder: Path) -> None:
    """Draw `entropy.png`, `interactions.png` and `parameters.png` of the network, and a picture of each image."""
    draw_entropy(explanation.layers, folder / "entropy.png")
    draw_interactions(explanation.layers, folder / "interactions.png")
    draw_parameters(explanation.layers, folder / "parameters.png")
    for index in range(len(explanation.images)):
        draw_image(explanation, index, folder / f"image-{index + 1:02d}-{names[index]}.png")


def draw_entropy(layers: list[AttendingLayer], file: Path) -> None:
    """Draw the entropy of each head of each layer, and the largest that there could be."""
    figure = Figure(figsize=(1.6 + 0.9 * len(layers), 3.6), layout="constrained")
    axes = figure.subplots()
    for x, layer in enumerate(layers):
        heads = attention_entropy(layer.weights).mean(dim=(0, 2))
        axes.plot([x] * len(heads), heads, "o", color="tab:blue", alpha=0.7, label="a head" if x == 0 else None)
        largest = np.log(layer.weights.shape[-1])
        axes.plot([x - 0.3, x + 0.3], [largest] * 2, color="gray", label="all tokens alike" if x == 0 else None)
    axes.set_xticks(range(len(layers)), [layer.name.replace(", ", "\n") for layer in layers], fontsize=8)
    axes.set(ylabel="entropy of attention, nats", ylim=(0, None), title="How wide each head looks")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, file)


def panels(count: int, size: float = 2.6) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels in rows, those that are not needed hidden."""
    rows, columns = -(-count // COLUMNS), min(count, COLUMNS)
    figure = Figure(figsize=(size * columns + 0.4, (size + 0.3) * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for empty in axes[count:]:
        empty.set_visible(False)
    return figure, axes[:count]


def draw_interactions(layers: list[AttendingLayer], file: Path) -> None:
    """Draw for each layer where positions look: an arrow to the middle of what each sees, on the size of its field."""
    figure, axes = panels(len(layers))
    for panel, layer in zip(axes, layers):
        seen, (rows, columns) = layer.interactions, layer.grid_size
        image = panel.imshow(seen.sizes.view(rows, columns), cmap="viridis")
        figure.colorbar(image, ax=panel, shrink=0.75)
        step = max(1, -(-max(rows, columns) // MAX_ARROWS))
        arrows = seen.arrows.view(rows, columns, 2)[::step, ::step]
        y, x = np.mgrid[0:rows:step, 0:columns:step]
        panel.quiver(x, y, arrows[..., 1], arrows[..., 0], angles="xy", scale_units="xy", scale=1, color="white",
                     width=0.004)  # fmt: skip
        of_images = f", images {seen.spread_over_images.mean():.2f}" if len(layer.weights) > 1 else ""
        panel.set_title(f"{layer.name}\nspread: heads {seen.spread_over_heads.mean():.2f}{of_images}", fontsize=8)
        panel.set_xticks([])
        panel.set_yticks([])
    figure.suptitle("Where positions look: arrow to the middle, color the radius in positions", fontsize=10)
    save_figure(figure, file)


def draw_parameters(layers: list[AttendingLayer], file: Path) -> None:
    """Draw the static keys of each layer as colors, and its bias: what is no image's."""
    drawn = [(layer, *what) for layer in layers for what in parameters_of(layer)]
    if not drawn:
        return
    figure, axes = panels(len(drawn), size=2.2)
    for panel, (layer, title, picture) in zip(axes, drawn):
        panel.imshow(picture, cmap="coolwarm" if picture.ndim == 2 else None)
        panel.set_title(f"{layer.name}\n{title}", fontsize=8)
        panel.set_xticks([])
        panel.set_yticks([])
    save_figure(figure, file)


@torch.no_grad()
def parameters_of(layer: AttendingLayer) -> list[tuple[str, np.ndarray]]:
    """Return titles and pictures of a layer's static keys and of its bias, of all heads."""
    pictures, first = [], layer.num_class_tokens
    rows, columns = strided_size(layer.grid_size, layer.key_stride)
    key = getattr(layer.mixer, "key", None)
    if key is not None and key.shape[1] == first + rows * columns:
        positions = key[:, first:].transpose(0, 1).flatten(1).float().numpy()
        pictures.append(("static keys", principal_colors(positions).reshape(rows, columns, 3)))
    bias = getattr(layer.mixer, "attention_bias", None)
    if bias is not None:
        middle = first + rows // 2 * columns + columns // 2
        of_middle = bias(layer.grid_size).mean(dim=0)[middle, first:]
        pictures.append(("bias of the middle", of_middle.view(rows, columns).float().numpy()))
    return pictures


def draw_image(explanation: Explanation, index: int, file: Path) -> None:
    """Draw an image, what rollout finds in it, and where the map of each stage speaks for the answer."""
    picture = enlarged(explanation.images[index])
    overlays = [("attention rollout", explanation.rollout)] if explanation.rollout is not None else []
    names = ["stem", *(f"stage {number}" for number in range(1, len(explanation.class_maps)))]
    overlays += [(f"Grad-CAM, {name}", maps) for name, maps in zip(names, explanation.class_maps)]
    figure, axes = panels(1 + len(overlays))
    axes[0].imshow(picture)
    if explanation.answers:
        label, probability = explanation.answers[index]
        axes[0].set_title(f"{label}, {probability:.0%}", fontsize=9, fontfamily=fonts_for([label]))
    for panel, (title, maps) in zip(axes[1:], overlays):
        panel.imshow(picture)
        panel.imshow(as_overlay(maps[index], picture.size), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        panel.set_title(title, fontsize=9)
    for panel in axes:
        panel.set_axis_off()
    save_figure(figure, file)


def enlarged(picture: Image.Image) -> Image.Image:
    """Return a picture whose pixels are squares of a whole number, so that maps over it are smooth."""
    factor = -(-MIN_PIXELS // min(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def as_overlay(heat: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return a map `(rows, columns)` enlarged to an image's `(width, height)`, its largest value 1."""
    width, height = size
    enlarged = F.interpolate(heat[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
    return (enlarged / enlarged.max().clamp(min=1e-12)).numpy()
