"""Attention weights and keys as images, and images as HTML that loads nothing from elsewhere."""

import base64
import html
import io
from collections.abc import Iterable

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

SIDE = 384  # pixels of a picture's longer side
COLORS = matplotlib.colormaps["magma"]
FULL_SCALE = 4  # the brightest color is a weight of at least this many times the uniform one
MARKER = (56, 220, 255)


def attention_picture(image: Image.Image, weights: np.ndarray, position: tuple[int, int] | None) -> Image.Image:
    """Return an image in gray under the attention weights on it; the query's position is framed.

    The brightest color is the largest weight or `FULL_SCALE` times the uniform one, whichever is more: weights that are
    nearly uniform look so.

    Args:
        image: as preprocessed for the network.
        weights: `(rows, columns)`.
        position: `(row, column)`, counted from 0, or None for no frame.
    """
    size = picture_size(image)
    picture = colored(image, weights / max(float(weights.max()), FULL_SCALE / weights.size), size)
    if position is not None:
        (rows, columns), (row, column) = weights.shape, position
        left, top = column * size[0] / columns, row * size[1] / rows
        frame = (left, top, left + size[0] / columns - 1, top + size[1] / rows - 1)
        ImageDraw.Draw(picture).rectangle(frame, outline=MARKER, width=max(2, SIDE // 96))
    return picture


def map_picture(image: Image.Image, values: np.ndarray) -> Image.Image:
    """Return an image in gray under a map on it, `(rows, columns)`, none below 0: its largest value is brightest."""
    return colored(image, values / max(float(values.max()), 1e-12), picture_size(image))


def colored(image: Image.Image, values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Return an image in gray under the colors of `(rows, columns)` values of 0 to 1."""
    gray = np.asarray(image.convert("L").resize(size, Image.Resampling.NEAREST), dtype=np.float32)[..., None] / 255
    heat = Image.fromarray((255 * COLORS(values)[..., :3]).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    blended = 0.3 * gray + 0.7 * np.asarray(heat, dtype=np.float32) / 255
    return Image.fromarray((255 * blended).astype(np.uint8))


def key_picture(colors: np.ndarray) -> Image.Image:
    """Return colors, `(rows, columns, 3)` of 0 to 1, as an image."""
    image = Image.fromarray((255 * colors).astype(np.uint8))
    return image.resize(picture_size(image), Image.Resampling.NEAREST)


def picture_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height, in pixels, of an image that is scaled to `SIDE`."""
    scale = SIDE / max(image.size)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def figures(items: Iterable[tuple[Image.Image, str, str]]) -> str:
    """Return HTML of images side by side, or stacked where there is no room, each with a title and a caption."""
    return f'<div class="sk-figures">{"".join(figure(*item) for item in items)}</div>'


def figure(picture: Image.Image, title: str, caption: str) -> str:
    """Return HTML of one image, the image itself in it."""
    source, title, caption = image_source(picture), html.escape(title), html.escape(caption)
    return (
        f'<figure><figcaption class="sk-title">{title}</figcaption><img src="{source}" alt="{title}: {caption}">'
        f'<figcaption class="sk-caption">{caption}</figcaption></figure>'
    )


def image_source(picture: Image.Image) -> str:
    """Return the address of an image that holds the image itself."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def note(title: str, subtitle: str, text: str) -> str:
    """Return HTML of a sentence on a network, in the place of its classes."""
    title, subtitle, text = html.escape(title), html.escape(subtitle), html.escape(text)
    return (
        f'<section class="sk-classes"><div class="sk-title">{title}</div>'
        f'<div class="sk-caption">{subtitle}</div><p>{text}</p></section>'
    )


def bars(title: str, subtitle: str, probabilities: dict[str, float], count: int = 5) -> str:
    """Return HTML of the most probable classes as bars."""
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])[:count]
    rows = "".join(
        f'<li><div class="sk-row"><span>{html.escape(label)}</span><span>{100 * value:.1f} %</span></div>'
        f'<div class="sk-track"><div style="width: {100 * value:.1f}%"></div></div></li>'
        for label, value in ranked
    )
    return (
        f'<section class="sk-classes"><div class="sk-title">{html.escape(title)}</div>'
        f'<div class="sk-caption">{html.escape(subtitle)}</div><ol>{rows}</ol></section>'
    )
