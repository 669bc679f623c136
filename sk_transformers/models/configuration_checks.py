"""What both configurations check, so that a wrong value is one clear sentence and not a shape error later."""

from difflib import get_close_matches
from typing import Any

ATTENTION_MIXER_NAMES = ("static_key", "conv_static_key", "static_map", "attention", "conv_key")
SPATIAL_MIXER_NAMES = ("separable_conv", "pooling", "identity", "random")
TOKEN_MIXER_NAMES = ATTENTION_MIXER_NAMES + SPATIAL_MIXER_NAMES
GRID_MIXER_NAMES = ("conv_key", *SPATIAL_MIXER_NAMES)  # those that take no class tokens
ATTENTION_BIASES = (None, "full", "relative")
ATTENTION_NORMALIZATIONS = ("softmax", "sparsemax", "entmax15")
TALKING_HEADS = (None, "linear", "affine")
INTERPOLATION_NAMES = ("auto", "bicubic", "bicubic_antialias", "bilinear_antialias")


def check_choice(what: str, value: object, choices: tuple[str | None, ...]) -> None:
    """Raise unless `value` is one of `choices`; the nearest ones are suggested."""
    if value in choices:
        return
    near = get_close_matches(str(value), [str(choice) for choice in choices], n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    raise ValueError(f"Unknown {what} {value!r}: expected one of {', '.join(repr(c) for c in choices)}.{hint}")


def values_of_layers(values: list[Any], depths: list[int]) -> list[list[Any]]:
    """Return the values of the layers of each stage, of one for each layer or, shorter, one for each stage."""
    if len(values) == len(depths):
        return [[value] * depth for value, depth in zip(values, depths)]
    left = iter(values)
    return [[next(left) for _ in range(depth)] for depth in depths]


def check_mixers(what: str, names: list[str], count: int, counted: str) -> None:
    """Raise unless `names` are `count` known token mixers, one for each of the things `counted`."""
    if len(names) != count:
        raise ValueError(f"{what} names {len(names)} token mixers, expected {count}: one for each of the {counted}.")
    for name in names:
        check_choice("token mixer", name, TOKEN_MIXER_NAMES)


def biases_of_mixers(attention_bias: Any, mixers: list[str], counted: str) -> list[str | None]:
    """Return the kind of the attention bias of each mixer; a single kind is that of all mixers that attend.

    Raises:
        ValueError: if a kind is unknown, or one of several is for a mixer that does not attend.
    """
    biases = one_for_each("attention_bias", attention_bias, len(mixers), counted)
    for bias, mixer in zip(biases, mixers):
        check_choice("attention_bias", bias, ATTENTION_BIASES)
        if isinstance(attention_bias, list | tuple) and bias is not None and mixer in SPATIAL_MIXER_NAMES:
            raise ValueError(
                f"attention_bias is {bias!r} for the token mixer {mixer!r}, which does not attend: use None."
            )
    return [bias if mixer in ATTENTION_MIXER_NAMES else None for bias, mixer in zip(biases, mixers)]


def check_at_least(lowest: float, **values: Any) -> None:
    """Raise unless every one of the named values is a number of at least `lowest`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < lowest:
            raise ValueError(f"{name} is {value!r}, expected a number of at least {lowest}.")


def check_segmenter(config: Any) -> None:
    """Raise unless the fields of a configuration that its family's segmenter reads are of use."""
    check_at_least(1, segmentation_hidden_size=config.segmentation_hidden_size)
    check_at_least(0, segmentation_auxiliary_weight=config.segmentation_auxiliary_weight)


def check_detector(config: Any) -> None:
    """Raise unless the fields of a configuration that its family's detector reads are of use."""
    check_at_least(
        1, detection_hidden_size=config.detection_hidden_size, detection_max_objects=config.detection_max_objects
    )
    check_at_least(1, detection_anchor_scale=config.detection_anchor_scale)
    check_rate(detection_score_threshold=config.detection_score_threshold)


def check_rate(**values: Any) -> None:
    """Raise unless every one of the named values is in [0, 1)."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise ValueError(f"{name} is {value!r}, expected a rate of at least 0 and less than 1.")


def size_pair(name: str, size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """Return `(height, width)` of a size given as one number or two."""
    pair = (size, size) if isinstance(size, int) else size
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(type(n) is int and n > 0 for n in pair):
        raise ValueError(f"{name} is {size!r}, expected a positive number of pixels or a pair (height, width) of them.")
    height, width = pair
    return height, width


def one_for_each(name: str, value: Any, count: int, counted: str) -> list[Any]:
    """Return `value` as a list of `count`; a single value is repeated."""
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values, expected {count}: one for each of the {counted}.")
    return values
