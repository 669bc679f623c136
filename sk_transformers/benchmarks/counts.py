"""Parameters and multiply-adds of the zoo's networks, beside the figures that their authors published."""

from collections.abc import Sequence

from transformers import AutoBackbone, AutoModelForObjectDetection, PretrainedConfig

from ..complexity import count_macs, count_parameters, macs_by_operator
from ..zoo import create_config, get_variant
from .resolution import configs_by_mode

LARGE_SIZE = 384  # pixels, for networks made for 224
HEADER = (
    "| model | parameters, M | published | image size | MACs, G | published | MACs at 384, G | published |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)

DETECTOR_HEADER = (
    "| Mask R-CNN over | backbone, G | pyramid and heads | together | without products in attention |",
    "| --- | ---: | ---: | ---: | ---: |",
)
COCO_CLASSES = 80


def to_table(names: Sequence[str]) -> str:
    """Return Markdown: a row for each network and, below, why published figures differ from counted ones."""
    notes: dict[str, list[str]] = {}
    for name in names:
        note = get_variant(name).published.note
        if note:
            notes.setdefault(note, []).append(f"`{name}`")
    lines = [*HEADER, *map(to_row, names), "", *(f"- {', '.join(named)}: {note}" for note, named in notes.items())]
    return "\n".join(lines)


def to_row(name: str) -> str:
    """Return a network's row, counted and published figures side by side."""
    config, published = create_config(name), get_variant(name).published
    at_384 = count_macs(config, LARGE_SIZE) / 1e9 if config.image_size == 224 else None
    cells = [
        f"`{name}`",
        f"{count_parameters(config) / 1e6:.2f}",
        cell(published.parameters),
        str(config.image_size),
        f"{count_macs(config) / 1e9:#.3g}",
        cell(published.macs),
        cell(at_384, ".1f"),
        cell(published.macs_384),
    ]
    return f"| {' | '.join(cells)} |"


def to_detector_table(names: Sequence[str], size: tuple[int, int]) -> str:
    """Return Markdown: the multiply-adds of Mask R-CNN over each network, on an image of this size.

    It has 1000 proposals and 100 masks, of COCO's classes. The last column leaves out the products in attention, as
    counters of layers do.

    Raises:
        ValueError: if there is no detector over a network.
    """
    configs: dict[str, PretrainedConfig] = {}
    for name in names:
        configs |= configs_by_mode(name, num_labels=COCO_CLASSES)
    for label, config in configs.items():
        if type(config) not in AutoModelForObjectDetection._model_mapping:
            raise ValueError(f"--mask_rcnn: there is no detector over {label}; one of a hybrid is skaformer-s18.")
    return "\n".join([*DETECTOR_HEADER, *(to_detector_row(label, config, size) for label, config in configs.items())])


def to_detector_row(label: str, config: PretrainedConfig, size: tuple[int, int]) -> str:
    """Return the row of Mask R-CNN over one network."""
    config.out_features = config.stage_names[1:]
    macs = macs_by_operator(config, size, AutoModelForObjectDetection)
    together, backbone = sum(macs.values()), count_macs(config, size, AutoBackbone)
    counts = (backbone, together - backbone, together, together - macs.get("bmm", 0))
    return f"| {' | '.join([label, *(f'{count / 1e9:.1f}' for count in counts)])} |"


def cell(value: float | None, spec: str = "g") -> str:
    """Return a number as text, or nothing where there is none."""
    return "" if value is None else format(value, spec)
