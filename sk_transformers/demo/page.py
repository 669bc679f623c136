"""The page: drop an image, see its classes or objects, and see what each network attends to and by which keys."""

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # gradio asks when it is imported

import gradio as gr
import numpy as np
from PIL import Image

from ..data.decoding import UnreadableImage, decode
from .dense import scene_html
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
NO_EVIDENCE_OF_PLACES = """
## What reaches the answer

Not shown: a segmenter or detector has an answer for each place, and not one that positions reach.
"""
NO_MAPS = """
## What a position attends to

Not shown: these networks attend within windows or not at all, and have no map of the whole image.
"""
KEYS = """
## The keys

Each position's key as a color (the first three principal components): similar colors are similar keys. **Try another
image:** computed keys change with it, static keys do not.
"""
CLASS_TOKEN, POSITION = "The class token", "A position"
MIN_WIDTH = 250  # pixels of a control: two do not fit side by side on a phone, and are stacked
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
.sk-wide { grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); }
.sk-scene { position: relative; }
.sk-scene img { width: 100%; height: auto; display: block; border-radius: .5rem; }
.sk-box { position: absolute; box-sizing: border-box; border: 2px solid; border-radius: 2px; }
.sk-box span { position: absolute; left: -2px; padding: 0 .3rem; font-size: .8rem; line-height: 1.3; }
.sk-box span { white-space: nowrap; }
.sk-box .sk-above { bottom: 100%; }
.sk-box .sk-in { top: -2px; }
.sk-box .sk-right { left: auto; right: -2px; }
.sk-legend { list-style: none; margin: .75rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .35rem 1.25rem; }
.sk-classes .sk-legend li { margin: 0; }
.sk-legend span { color: var(--neutral-600); font-variant-numeric: tabular-nums; }
.dark .sk-legend span { color: var(--neutral-400); }
.sk-legend i { display: inline-block; width: .85rem; height: .85rem; margin-right: .4rem; vertical-align: -.1rem;
  border: 1px solid var(--border-color-primary); border-radius: .2rem; }
.sk-count { margin: .75rem 0 0; }
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
        """Return the limits of networks with maps; 1 each where there are none."""
        networks = [network for network in networks if network.has_maps]
        if not networks:
            return cls(1, 1, 1, 1, class_token=False)
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
    limits, has_maps = Limits.of(networks), any(network.has_maps for network in networks)
    has_evidence = not all(network.is_dense for network in networks)
    with gr.Blocks(title="Static keys, side by side", analytics_enabled=False) as page:
        readings = gr.State(None)
        gr.Markdown(INTRODUCTION)
        image, classes = add_image(examples)
        gr.Markdown(ATTENTION if has_maps else NO_MAPS)
        with gr.Column(visible=has_maps):
            controls = add_controls(limits)
            attention = gr.HTML(EMPTY, elem_id="attention", padding=False, js_on_load=REPORT_PRESSES)
        gr.Markdown(EVIDENCE if has_evidence else NO_EVIDENCE_OF_PLACES)
        evidence = gr.HTML(EMPTY, elem_id="evidence", padding=False, visible=has_evidence)
        with gr.Column(visible=has_maps):
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
            readings = [replace(reading, scene=None) for reading in readings]  # whose masks are large, and are shown
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
    with gr.Row():
        layer = add_slider("Layer", "layer", 1, limits.layers, (limits.layers + 1) // 2)
        head = add_slider("Head (0: mean of all)", "head", 0, limits.heads, 0)
    with gr.Row():
        row = add_slider("Row", "row", 1, limits.rows, (limits.rows + 1) // 2)
        column = add_slider("Column", "column", 1, limits.columns, (limits.columns + 1) // 2)
        query = gr.Radio(
            [POSITION, CLASS_TOKEN], value=POSITION, label="Query", visible=limits.class_token, min_width=MIN_WIDTH
        )
    return [layer, head, row, column, query]


def add_slider(label: str, elem_id: str, low: int, high: int, value: int) -> gr.Slider:
    """Add a slider of whole numbers, which is hidden where there is one only: gradio has none of one number."""
    options: dict[str, Any] = {"label": label, "elem_id": elem_id, "step": 1, "min_width": MIN_WIDTH}
    return gr.Slider(low, max(high, low + 1), value=value, visible=high > low, **options)


def launch(page: gr.Blocks, **options: Any) -> Any:
    """Serve the page; `options` and what is returned are those of gradio's `launch`."""
    theme = gr.themes.Default(primary_hue="indigo", neutral_hue="zinc", font=FONT, font_mono=MONO)
    return page.launch(theme=theme, **{**SERVER, **options})


def classes_html(networks: Sequence[Network], readings: Sequence[Reading]) -> str:
    """Return HTML of what each network makes of the image.

    That is the most probable classes by a classifier, the image with classes of pixels by a segmenter or objects by a
    detector, and of a network without a head how alike its features are to those of the first of these.
    """
    first = next((number for number, reading in enumerate(readings) if reading.features is not None), 0)
    columns = []
    for network, reading in zip(networks, readings):
        if reading.scene is not None:
            column = scene_html(network.mechanism, network.name, reading.scene)
        elif reading.features is None:
            column = bars(network.mechanism, network.name, reading.probabilities)
        else:
            text = likeness(reading, readings[first], networks[first].name)
            column = note(network.mechanism, network.name, text)
        columns.append(column)
    is_wide = any(network.is_dense for network in networks)
    return f'<div class="sk-answers{" sk-wide" if is_wide else ""}">{"".join(columns)}</div>'


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
    for network, reading in with_layers(networks, readings):
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
    return figures(items) + notes_html(networks, readings)


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
    for network, reading in with_layers(networks, readings):
        shown = layer_of(reading, layer)
        origin = "Trained, the same for every image" if shown.key_is_static else "Computed from this image"
        caption = f"{origin}. {shown.keys.shape[-1]} channels per position and head."
        items.append((key_picture(shown.key_colors(head)), figure_title(network, networks), caption))
    return figures(items) + notes_html(networks, readings)


def with_layers(networks: Sequence[Network], readings: Sequence[Reading]) -> list[tuple[Network, Reading]]:
    """Return the networks that have maps of the image, with their readings."""
    return [(network, reading) for network, reading in zip(networks, readings) if reading.layers]


def notes_html(networks: Sequence[Network], readings: Sequence[Reading]) -> str:
    """Return HTML of a sentence on each network that has no maps of the image."""
    return "".join(
        f'<p class="sk-empty">{html.escape(network.name)} {reading.no_maps}</p>'
        for network, reading in zip(networks, readings)
        if reading.no_maps
    )


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
