"""The page: drop an image, see its classes, and see what each network attends to and by which keys."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # gradio asks when it is imported

import gradio as gr
import numpy as np
from PIL import Image

from ..data.decoding import UnreadableImage, decode
from .mechanism import Layer, Network, Reading, read
from .pictures import attention_picture, bars, figures, key_picture, map_picture, note

INTRODUCTION = """
# Static keys, side by side

In **attention** a position compares its query with keys that are computed from the image. With **static keys (SKA)**
the keys are trained parameters, the same for every image, one for each position. With **convolutional static keys
(CSKA)** a position's query is its 3x3 neighborhood.
"""
ATTENTION = """
## What a position attends to

The framed position gives each position a weight: the brighter, the more. Press on an image to choose another query, and
move the sliders to see other layers and heads.
"""
EVIDENCE = """
## What reaches the answer

**Attention rollout** multiplies the attention of all layers: which positions reach the class token or, where there is
none, the mean of all. In a network of stages **Grad-CAM** shows where a stage's map speaks for the likeliest class.
"""
KEYS = """
## The keys

Each position's key as a color (the first three principal components): similar colors are similar keys. **Try another
image:** computed keys change with it, static keys do not.
"""
CLASS_TOKEN, POSITION = "The class token", "A position"
FONT = ["system-ui", "sans-serif"]  # of the device: no font is fetched
MONO = ["ui-monospace", "monospace"]
CSS = """
.gradio-container { max-width: 68rem !important; margin: 0 auto !important; }
.sk-figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); gap: 1.25rem; }
.sk-figures figure { margin: 0; max-width: 26rem; }
.sk-figures img { width: 100%; height: auto; display: block; border-radius: .5rem; image-rendering: pixelated; }
.sk-title { font-weight: 600; margin-bottom: .35rem; color: var(--body-text-color); }
.sk-caption { font-size: .85rem; line-height: 1.4; color: var(--neutral-600); margin-top: .35rem; }
.dark .sk-caption, .dark .sk-empty { color: var(--neutral-400); }
.sk-answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(11rem, 100%), 1fr)); gap: 1.5rem; }
.sk-classes .sk-caption { margin: -.35rem 0 .75rem; }
.sk-classes ol { list-style: none; margin: 0; padding: 0; }
.sk-classes li { margin: 0 0 .6rem; }
.sk-row { display: flex; justify-content: space-between; gap: 1rem; font-variant-numeric: tabular-nums; }
.sk-track { height: .45rem; border-radius: .25rem; background: var(--border-color-primary); overflow: hidden; }
.sk-track div { height: 100%; border-radius: .25rem; background: var(--color-accent); }
.sk-empty { padding: 2rem 0; color: var(--neutral-600); }
#classes .html-container, #attention .html-container { padding: 0; }
#evidence .html-container, #keys .html-container { padding: 0; }
#classes, #attention, #evidence, #keys { padding: 0 !important; }
#attention img { cursor: crosshair; }
#image img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated; }
.gradio-container h2 { margin-top: 1.5rem; }
"""
REPORT_PRESSES = """
element.addEventListener("click", (event) => {
  if (event.target.tagName !== "IMG") return;
  const box = event.target.getBoundingClientRect();
  trigger("click", { down: (event.clientY - box.top) / box.height, across: (event.clientX - box.left) / box.width });
});
"""
EMPTY = '<p class="sk-empty">Choose an image to see this.</p>'
NO_EVIDENCE = '<p class="sk-empty">None of these networks has layers of the same tokens, or classes and stages.</p>'
SERVER = {"css": CSS, "footer_links": [], "ssr_mode": False}


@dataclass(frozen=True)
class Limits:
    """The most layers, heads, rows and columns of the networks on a page, and whether all have a class token."""

    layers: int
    heads: int
    rows: int
    columns: int
    class_token: bool

    @classmethod
    def of(cls, networks: Sequence[Network]) -> "Limits":
        mixers = [mixer for network in networks for mixer in network.mixers]
        return cls(
            layers=max(len(network.mixers) for network in networks),
            heads=max(mixer.options.num_heads for mixer in mixers),
            rows=max(mixer.grid_size[0] for mixer in mixers),
            columns=max(mixer.grid_size[1] for mixer in mixers),
            class_token=all(mixer.num_class_tokens for mixer in mixers),
        )


def build_page(networks: Sequence[Network], examples: Sequence[Path] = ()) -> gr.Blocks:
    """Return the page of some networks, to be served by `launch`.

    Args:
        networks: shown side by side, in this order.
        examples: image files to choose from.
    """
    limits = Limits.of(networks)
    with gr.Blocks(title="Static keys, side by side", analytics_enabled=False) as page:
        readings = gr.State(None)
        gr.Markdown(INTRODUCTION)
        image, classes = add_image(examples)
        gr.Markdown(ATTENTION)
        controls = add_controls(limits)
        attention = gr.HTML(EMPTY, elem_id="attention", padding=False, js_on_load=REPORT_PRESSES)
        gr.Markdown(EVIDENCE)
        evidence = gr.HTML(EMPTY, elem_id="evidence", padding=False)
        gr.Markdown(KEYS)
        keys = gr.HTML(EMPTY, elem_id="keys", padding=False)

        def show(
            readings: list[Reading] | None, layer: int, head: int, row: int, column: int, query: str
        ) -> tuple[str, str]:
            if readings is None:
                return EMPTY, EMPTY
            place = None if query == CLASS_TOKEN else ((row - 0.5) / limits.rows, (column - 0.5) / limits.columns)
            return attention_html(networks, readings, layer, head, place), keys_html(networks, readings, layer, head)

        def classify(file: str | None, *controls: Any) -> tuple[list[Reading] | None, str, str, str, str]:
            if file is None:
                return None, EMPTY, EMPTY, EMPTY, EMPTY
            image = read_image(file)
            readings = [read(network, image) for network in networks]
            shown = classes_html(networks, readings), evidence_html(networks, readings)
            return readings, *shown, *show(readings, *controls)

        def choose(event: gr.EventData) -> tuple[int, int, str]:
            down, across = (min(max(fraction, 0), 0.999) for fraction in (event.down, event.across))
            return int(down * limits.rows) + 1, int(across * limits.columns) + 1, POSITION

        image.change(
            classify, [image, *controls], [readings, classes, evidence, attention, keys], show_progress="hidden"
        )
        attention.click(choose, None, controls[2:], show_progress="hidden")
        for control in controls:
            control.change(show, [readings, *controls], [attention, keys], show_progress="hidden")
    return page


def read_image(file: str) -> Image.Image:
    """Return an image as training sees it; gr.Error, which the page shows, says why one is unreadable."""
    try:
        with open(file, "rb") as opened:
            return decode(opened)
    except (UnreadableImage, OSError) as error:
        raise gr.Error(f"This image is unreadable ({error}).") from error


def add_image(examples: Sequence[Path]) -> tuple[gr.Image, gr.HTML]:
    """Add the image to classify, and beside it the place for its classes."""
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            image = gr.Image(
                type="filepath",
                image_mode=None,
                label="Image",
                sources=["upload", "clipboard"],
                height=320,
                elem_id="image",
            )
            if examples:
                gr.Examples([[str(path)] for path in examples], inputs=[image], label="Examples")
        with gr.Column(scale=3, min_width=280):
            classes = gr.HTML(EMPTY, elem_id="classes", padding=False)
    return image, classes


def add_controls(limits: Limits) -> list[Any]:
    """Add what chooses layer, head, row and column of the query, and whether it is the class token."""
    wide: dict[str, Any] = {"min_width": 250}  # two do not fit side by side on a phone, and are stacked
    whole: dict[str, Any] = {"step": 1, **wide}
    with gr.Row():
        layer = gr.Slider(1, limits.layers, value=(limits.layers + 1) // 2, label="Layer", elem_id="layer", **whole)
        head = gr.Slider(0, limits.heads, value=0, label="Head (0: mean of all)", elem_id="head", **whole)
    with gr.Row():
        row = gr.Slider(1, limits.rows, value=(limits.rows + 1) // 2, label="Row", elem_id="row", **whole)
        column = gr.Slider(
            1, limits.columns, value=(limits.columns + 1) // 2, label="Column", elem_id="column", **whole
        )
        query = gr.Radio([POSITION, CLASS_TOKEN], value=POSITION, label="Query", visible=limits.class_token, **wide)
    return [layer, head, row, column, query]


def launch(page: gr.Blocks, **options: Any) -> Any:
    """Serve the page; `options` and what is returned are those of gradio's `launch`."""
    theme = gr.themes.Default(primary_hue="indigo", neutral_hue="zinc", font=FONT, font_mono=MONO)
    return page.launch(theme=theme, **{**SERVER, **options})


def classes_html(networks: Sequence[Network], readings: Sequence[Reading]) -> str:
    """Return HTML of the most probable classes by each network, or of how alike the features are that it makes."""
    first = next((number for number, reading in enumerate(readings) if reading.features is not None), 0)
    columns = (
        bars(network.mechanism, network.name, reading.probabilities)
        if reading.features is None
        else note(network.mechanism, network.name, likeness(reading, readings[first], networks[first].name))
        for network, reading in zip(networks, readings)
    )
    return f'<div class="sk-answers">{"".join(columns)}</div>'


def likeness(reading: Reading, first: Reading, name: str) -> str:
    """Return how alike the features of an image are to those of the first network that makes some, called `name`."""
    features, expected = reading.features, first.features
    assert features is not None and expected is not None
    text = f"{len(features)} features"
    if reading is first or len(features) != len(expected):
        return f"{text}."
    cosine = features @ expected / max(float(np.linalg.norm(features) * np.linalg.norm(expected)), 1e-12)
    return f"{text}; their cosine to those of {name} is {cosine:.3f}."


def attention_html(
    networks: Sequence[Network],
    readings: Sequence[Reading],
    layer: int,
    head: int,
    place: tuple[float, float] | None,
) -> str:
    """Return HTML of the attention weights of one query in each network.

    Args:
        networks, readings: of one image.
        layer, head: counted from 1; networks with fewer show their last. Head 0 is the mean of all.
        place: how far down and across, 0 to 1, the query's position is; None for the class token.
    """
    items = []
    for network, reading in zip(networks, readings):
        shown = layer_of(reading, layer)
        position = None
        if place is None:
            weights, on_class_tokens = shown.weights_of_class_token(head)
        else:
            query = int(place[0] * shown.grid_size[0]), int(place[1] * shown.grid_size[1])
            weights, on_class_tokens = shown.weights_of_position(head, *query)
            position = query[0] // shown.key_stride, query[1] // shown.key_stride  # where the keys are fewer
        caption = f"{describe(reading, layer, head, shown)}. Largest weight {weights.max():.1%}"
        caption += f", uniform {1 / weights.size:.1%}"
        caption += f"; on the class token {on_class_tokens:.1%}." if shown.num_class_tokens else "."
        widest = np.log(shown.attention.shape[-1])
        caption += f" Entropy of all queries {shown.entropy(head):.2f} nats, of at most {widest:.2f}."
        items.append((attention_picture(reading.seen, weights, position), figure_title(network, networks), caption))
    return figures(items)


def evidence_html(networks: Sequence[Network], readings: Sequence[Reading]) -> str:
    """Return HTML of which positions reach the answer of each network that has something to show."""
    items = [
        (map_picture(reading.seen, reading.evidence.map), figure_title(network, networks), f"{reading.evidence.title}.")
        for network, reading in zip(networks, readings)
        if reading.evidence is not None
    ]
    return figures(items) if items else NO_EVIDENCE


def keys_html(networks: Sequence[Network], readings: Sequence[Reading], layer: int, head: int) -> str:
    """Return HTML of the keys of each network as images."""
    items = []
    for network, reading in zip(networks, readings):
        shown = layer_of(reading, layer)
        origin = "Trained, the same for every image" if shown.key_is_static else "Computed from this image"
        caption = f"{origin}. {shown.keys.shape[-1]} channels per position and head."
        items.append((key_picture(shown.key_colors(head)), figure_title(network, networks), caption))
    return figures(items)


def figure_title(network: Network, networks: Sequence[Network]) -> str:
    """Return a network's mechanism, with its name where others on the page have the same one."""
    is_unique = sum(other.mechanism == network.mechanism for other in networks) == 1
    return network.mechanism if is_unique else f"{network.mechanism}: {network.name}"


def layer_of(reading: Reading, layer: int) -> Layer:
    """Return a layer, counted from 1, or the last where there are fewer."""
    return reading.layers[min(layer, len(reading.layers)) - 1]


def describe(reading: Reading, layer: int, head: int, shown: Layer) -> str:
    """Return which layer and head are shown."""
    heads = len(shown.attention)
    name = f"mean of {heads} heads" if head == 0 else f"head {min(head, heads)} of {heads}"
    return f"Layer {min(layer, len(reading.layers))} of {len(reading.layers)}, {name}"
