"""The page: drop an image, see the classes, and see where each network looks and by which keys."""

import os
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # gradio asks when it is imported

import gradio as gr

from .mechanism import Layer, Network, Reading, read
from .pictures import attention_picture, bars, figures, key_picture

INTRODUCTION = """
# Static keys, side by side

In **attention** a position looks around by comparing its query with keys that are computed from the image. With
**static keys (SKA)** the keys are trained parameters, the same for every image, one for each place. With
**convolutional static keys (CSKA)** a position asks together with its eight neighbours.
"""
WHERE = """
## Where a position looks

The framed position gives each place a weight: the brighter, the more. Press on a picture to choose another position,
and move the sliders to see other layers and heads.
"""
KEYS = """
## The keys it looks by

Each place's key as a colour (the first three principal components): alike in colour is alike in key. **Try another
image:** computed keys change with it, static keys do not.
"""
CLASS_TOKEN, POSITION = "The class token", "A position"
FONT = ["system-ui", "sans-serif"]  # what the device has: no font is fetched
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
#classes .html-container, #attention .html-container, #keys .html-container { padding: 0; }
#classes, #attention, #keys { padding: 0 !important; }
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
SERVER = {"css": CSS, "footer_links": [], "ssr_mode": False}


def build_page(networks: list[Network], examples: list[Path] = ()) -> gr.Blocks:
    """The page of some networks, to be launched by `launch`.

    Args:
        networks: shown side by side, in this order.
        examples: image files to choose from.
    """
    most_layers = max(len(network.mixers) for network in networks)
    most_heads = max(mixer.num_heads for network in networks for mixer in network.mixers)
    rows = max(mixer.grid_size[0] for network in networks for mixer in network.mixers)
    columns = max(mixer.grid_size[1] for network in networks for mixer in network.mixers)
    has_class_token = all(mixer.num_class_tokens for network in networks for mixer in network.mixers)

    with gr.Blocks(title="Static keys, side by side", analytics_enabled=False) as page:
        readings = gr.State(None)
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                image = gr.Image(
                    type="pil", label="Image", sources=["upload", "clipboard"], height=320, elem_id="image"
                )
                if examples:
                    gr.Examples([[str(path)] for path in examples], inputs=[image], label="Examples")
            with gr.Column(scale=3, min_width=280):
                classes = gr.HTML(EMPTY, elem_id="classes", padding=False)
        gr.Markdown(WHERE)
        wide = {"min_width": 250}  # two of them find no room on a telephone, and stand below each other
        whole = {"step": 1, **wide}
        with gr.Row():
            layer = gr.Slider(1, most_layers, value=(most_layers + 1) // 2, label="Layer", elem_id="layer", **whole)
            head = gr.Slider(0, most_heads, value=0, label="Head (0: mean of all)", elem_id="head", **whole)
        with gr.Row():
            row = gr.Slider(1, rows, value=(rows + 1) // 2, label="Row", elem_id="row", **whole)
            column = gr.Slider(1, columns, value=(columns + 1) // 2, label="Column", elem_id="column", **whole)
            asks = gr.Radio([POSITION, CLASS_TOKEN], value=POSITION, label="Who looks", visible=has_class_token, **wide)
        attention = gr.HTML(EMPTY, elem_id="attention", padding=False, js_on_load=REPORT_PRESSES)
        gr.Markdown(KEYS)
        keys = gr.HTML(EMPTY, elem_id="keys", padding=False)

        def show(readings, layer, head, row, column, asks):
            if readings is None:
                return EMPTY, EMPTY
            place = None if asks == CLASS_TOKEN else ((row - 0.5) / rows, (column - 0.5) / columns)
            return attention_html(networks, readings, layer, head, place), keys_html(networks, readings, layer, head)

        def classify(image, *controls):
            if image is None:
                return None, EMPTY, EMPTY, EMPTY
            readings = [read(network, image) for network in networks]
            return readings, classes_html(networks, readings), *show(readings, *controls)

        def choose(event: gr.EventData):
            down, across = (min(max(part, 0), 0.999) for part in (event.down, event.across))
            return int(down * rows) + 1, int(across * columns) + 1, POSITION

        controls = [layer, head, row, column, asks]
        image.change(classify, [image, *controls], [readings, classes, attention, keys], show_progress="hidden")
        attention.click(choose, None, [row, column, asks], show_progress="hidden")
        for control in controls:
            control.change(show, [readings, *controls], [attention, keys], show_progress="hidden")
    return page


def launch(page: gr.Blocks, **options):
    """Serve the page; `options` are those of gradio's `launch`."""
    theme = gr.themes.Default(primary_hue="indigo", neutral_hue="zinc", font=FONT, font_mono=MONO)
    return page.launch(theme=theme, **{**SERVER, **options})


def classes_html(networks: list[Network], readings: list[Reading]) -> str:
    """The likeliest classes by each network."""
    columns = (
        bars(network.mechanism, network.name, reading.probabilities) for network, reading in zip(networks, readings)
    )
    return f'<div class="sk-answers">{"".join(columns)}</div>'


def attention_html(
    networks: list[Network], readings: list[Reading], layer: int, head: int, place: tuple[float, float] | None
) -> str:
    """Where one place looks, by each network.

    Args:
        layer, head: counted from 1; networks with fewer show their last. Head 0 is the mean of all.
        place: how far down and across, 0 to 1, the position is that looks; None for the class token.
    """
    items = []
    for network, reading in zip(networks, readings):
        shown = layer_of(reading, layer)
        position = None
        if place is None:
            weights, to_class = shown.class_token_looks_at(head)
        else:
            position = tuple(int(part * side) for part, side in zip(place, shown.grid_size))
            weights, to_class = shown.looks_at(head, *position)
        caption = f"{which(reading, layer, head, shown)}. Largest weight {weights.max():.1%}"
        caption += f", evenly spread {1 / weights.size:.1%}"
        caption += f"; to the class token {to_class:.1%}." if shown.num_class_tokens else "."
        items.append((attention_picture(reading.seen, weights, position), network.mechanism, caption))
    return figures(items)


def keys_html(networks: list[Network], readings: list[Reading], layer: int, head: int) -> str:
    """The keys of each network as pictures."""
    items = []
    for network, reading in zip(networks, readings):
        shown = layer_of(reading, layer)
        origin = "Trained, the same for every image" if shown.key_is_static else "Computed from this image"
        caption = f"{origin}. {shown.keys.shape[-1]} numbers a place and head."
        items.append((key_picture(shown.key_colors(head)), network.mechanism, caption))
    return figures(items)


def layer_of(reading: Reading, layer: int) -> Layer:
    return reading.layers[min(layer, len(reading.layers)) - 1]


def which(reading: Reading, layer: int, head: int, shown: Layer) -> str:
    heads = len(shown.attention)
    name = f"mean of {heads} heads" if head == 0 else f"head {min(head, heads)} of {heads}"
    return f"Layer {min(layer, len(reading.layers))} of {len(reading.layers)}, {name}"
