"""A drawing of a network in plain text, which reads the same on the Hub, in a terminal and on a telephone."""

from itertools import groupby, zip_longest

from transformers import PretrainedConfig, PreTrainedModel

from ...models.configuration_checks import size_pair, values_of_layers

STATIC_MIXERS = {"static_key": "static keys (SKA)", "conv_static_key": "convolutional static keys (CSKA)"}
MIXERS = {
    **STATIC_MIXERS,
    "static_map": "static maps",
    "conv_key": "convolved keys",
    "attention": "self-attention",
    "separable_conv": "separable convolution",
    "pooling": "pooling",
    "identity": "no mixing",
    "random": "random mixing",
}
KEYS, NO_KEYS = "K", "."  # a layer with static keys, and one without
BAR = 18  # layers in a row of a bar


def draw(model: PreTrainedModel) -> str:
    """Return the network from image to classes, a line for each run of layers, a letter for each layer.

        image    224 x 224
        stem     56 x 56              convolution
        stage 1  56 x 56 x 64   ...   separable convolution
        stage 2  28 x 28 x 128  KKK   static keys (SKA)
                                      4 heads, 784 keys of 32

    Args:
        model: one of this package's.
    """
    config = model.config
    height, width = size_pair("image_size", config.image_size)
    rows = [("image", f"{height} x {width}", "", "")]
    rows += _stages(model) if config.has_stages else _layers(model)
    if "ForImageClassification" in type(model).__name__:
        rows.append(("classes", f"{config.num_labels}", "", ""))
    elif "ForSemanticSegmentation" in type(model).__name__:
        rows.append(("pixels", f"{height} x {width} x {config.num_labels}", "", "UperNet"))
    elif "ForObjectDetection" in type(model).__name__:
        head = "Mask R-CNN" if config.detection_masks else "Faster R-CNN"
        rows.append(("objects", f"{config.detection_max_objects} of {config.num_labels} classes", "", head))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0])).rstrip() for row in rows]
    if any(KEYS in row[2] for row in rows):
        lines += ["", f"{KEYS}  a layer with static keys    {NO_KEYS}  a layer without"]
    return "\n".join(lines)


def mixer_summary(config: PretrainedConfig) -> str:
    """`"separable convolution in stage 1 and static keys (SKA) in stages 2 to 4"`."""
    unit = "stage" if config.has_stages and len(config.token_mixers) == len(config.depths) else "layer"
    runs = _runs(config.token_mixers)
    if len(runs) == 1:
        return f"{mixer_title(runs[0][0])} in all {unit}s"
    parts = [f"{mixer_title(mixer)} in {unit}{_numbers(first, last)}" for mixer, first, last in runs]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def mixer_title(mixer: str) -> str:
    """Return what a card calls a mixer."""
    return MIXERS.get(mixer, mixer.replace("_", " "))


def _numbers(first: int, last: int) -> str:
    return f" {first}" if first == last else f"s {first} {'and' if last == first + 1 else 'to'} {last}"


def _runs(mixers: list[str]) -> list[tuple[str, int, int]]:
    """Equal neighbors together: mixer, first and last number from 1 on."""
    runs = []
    for mixer, same in groupby(enumerate(mixers, 1), key=lambda pair: pair[1]):
        numbers = [number for number, _ in same]
        runs.append((mixer, numbers[0], numbers[-1]))
    return runs


def _stages(model: PreTrainedModel) -> list[tuple[str, str, str, str]]:
    config, mixers = model.config, _static_mixers(model)
    stem = f"patches of {config.patch_size} x {config.patch_size}" if hasattr(config, "patch_size") else "convolution"
    first_static, rows = 0, [("stem", "{} x {}".format(*config.grid_sizes[0]), "", stem)]
    for stage, of_layers in enumerate(values_of_layers(config.token_mixers, config.depths)):
        grid, channels = config.grid_sizes[stage], config.hidden_sizes[stage]
        positions = f"{grid[0]} x {grid[1]}"
        if hasattr(config, "class_tokens") and config.class_tokens[stage]:
            positions = f"({positions} + {config.class_tokens[stage]})"
        name, shape = f"stage {stage + 1}", f"{positions} x {channels}"
        for mixer, first, last in _runs(of_layers):
            depth = last - first + 1
            keys = _keys(mixers[first_static : first_static + depth]) if mixer in STATIC_MIXERS else ""
            first_static += depth if mixer in STATIC_MIXERS else 0
            rows += _row(name, shape, mixer, depth, keys)
            name, shape = "", ""
    return rows


def _layers(model: PreTrainedModel) -> list[tuple[str, str, str, str]]:
    config, mixers = model.config, _static_mixers(model)
    patch = "{} x {}".format(*size_pair("patch_size", config.patch_size))
    tokens = "{} x {}".format(*config.grid_size)
    if config.num_prefix_tokens:
        tokens = f"({tokens} + {config.num_prefix_tokens})"
    what = [f"patches of {patch}", "the class token", "the distillation token"][: 1 + config.num_class_tokens]
    what += [f"{config.num_register_tokens} registers"] if config.num_register_tokens else []
    rows = [("tokens", tokens.strip("()"), "", " and ".join(what))]
    first_static = 0
    for mixer, first, last in _runs(config.token_mixers):
        depth = last - first + 1
        keys = _keys(mixers[first_static : first_static + depth]) if mixer in STATIC_MIXERS else ""
        first_static += depth if mixer in STATIC_MIXERS else 0
        name = f"layer {first}" if depth == 1 else f"layers {first} to {last}"
        rows += _row(name, f"{tokens} x {config.hidden_size}", mixer, depth, keys)
    if config.pooling == "class_layers":
        rows += _row("class token", f"1 x {config.hidden_size}", "class_attention", config.num_class_layers, "")
    return rows


def _row(name: str, shape: str, mixer: str, depth: int, keys: str) -> list[tuple[str, str, str, str]]:
    bar = (KEYS if mixer in STATIC_MIXERS else NO_KEYS) * depth
    bars = [bar[start : start + BAR] for start in range(0, depth, BAR)]
    notes = [mixer_title(mixer)] + ([keys] if keys else [])
    first, *more = zip_longest(bars, notes, fillvalue="")
    return [(name, shape, *first), *(("", "", *rest) for rest in more)]


def _static_mixers(model: PreTrainedModel) -> list:
    """Return the modules with static keys, first layer first."""
    return [module for module in model.modules() if hasattr(module, "static_keys")]


def _keys(mixers: list) -> str:
    heads, positions, channels = mixers[0].static_keys()[0].shape
    return f"{heads} head{'s' if heads > 1 else ''}, {positions} keys of {channels}"
