"""The network that is calibrated: one of ours, or one that is converted first."""

import re
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..conversion import convert
from ..hub.licenses import license_on_card
from ..image_processing import image_processor_for
from ..pretrained import LOADING_ERRORS, load_base_model, load_classifier, resize
from ..pretrained import source_of as repo_of

OURS = ("skvit", "skcait", "skformer", "skswin", "skcvt")


@dataclass
class Source:
    """A trained network and what a card says of it: its name, its license, and its Hub id if it has one."""

    name: str
    model: PreTrainedModel
    processor: BaseImageProcessor
    license: str
    base_model: str | None = None


def load_source(name: str, folder: Path, image_size: int | None = None, license: str | None = None) -> Source:
    """Return a network of this package, or convert another one.

    Args:
        name: of a trained network of the zoo, or a folder or Hub id of ours or of what `sk-transformers convert` takes.
        folder: where what is converted is kept.
        image_size: pixels a side, to which the network is resized.
        license: of the weights, where the source does not say.

    Raises:
        ValueError: if it is no such network, or has no attention to replace.
    """
    repo = repo_of(name)
    config = config_of_ours(repo)
    if config is None:
        repo = str(folder)
        if not (folder / "config.json").is_file():
            convert(name, folder, license=license)
        config = AutoConfig.from_pretrained(repo)
    check_attention(name, config)
    is_classifier = "ForImageClassification" in (config.architectures or [""])[0]
    model, processor = (load_classifier if is_classifier else load_base_model)(repo)
    hub_id = name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists() else None
    found = license or license_on_card(repo) or "other"
    return sized(Source(name, model, processor, found, hub_id), image_size)


def source_of(model: PreTrainedModel, processor: BaseImageProcessor | None, image_size: int | None) -> Source:
    """Return a network that a program has as a source; see `load_source`."""
    check_attention("the model", model.config)
    processor = processor or image_processor_for(model.config.image_size)
    name = Path(model.config._name_or_path or type(model).__name__).name
    return sized(Source(name, model, processor, "other"), image_size)


def sized(source: Source, image_size: int | None) -> Source:
    """Return the source for images of another size, in float32."""
    if image_size is not None and source.model.config.image_size != image_size:
        source.model, source.processor = resize(source.model, source.processor, image_size)
    source.model = source.model.float()
    if source.model.config.has_stages:
        check_windows(source.name, source.model.config)
    return source


def config_of_ours(name: str) -> PretrainedConfig | None:
    """Return the configuration of a network of this package, or None if it is another's or cannot be loaded."""
    if not Path(name).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return None
    try:
        config = AutoConfig.from_pretrained(name)
    except LOADING_ERRORS:
        return None
    return config if config.model_type in OURS else None


def check_attention(name: str, config: PretrainedConfig) -> None:
    """Raise ValueError unless single layers of the network have attention that can be replaced."""
    if config.has_stages and config.model_type != "skswin":
        raise ValueError(
            f"{name} is a {config.model_type}, which has one mixer for all layers of a stage: calibration replaces the"
            " attention of single layers, and takes Vision Transformers and Swins."
        )
    if getattr(config, "window_keys", "shared") != "shared":
        raise ValueError(
            f"{name} has window_keys={config.window_keys!r}: calibration fits one key for all windows of a layer, and"
            " takes 'shared'."
        )
    if getattr(config, "talking_heads", None) is not None:
        raise ValueError(
            f"{name} has talking_heads={config.talking_heads!r}: what takes the place of attention is fitted to the"
            " weights of single heads, and takes networks whose heads are not mixed."
        )
    if "attention" not in config.token_mixers:
        mixers = ", ".join(sorted(set(config.token_mixers)))
        raise ValueError(f"{name} has no attention to replace: its token mixers are {mixers}.")
    if not getattr(config, "query_projection", True):
        raise ValueError(f"{name} has query_projection=False, and the queries of attention are projections.")
    if config.attention_normalization != "softmax":
        raise ValueError(
            f"{name} has attention_normalization={config.attention_normalization!r}: what takes the place of attention"
            " is fitted to the logarithm of its weights, and takes 'softmax', whose weights are above zero."
        )


def mixers_of_layers(config: PretrainedConfig) -> list[tuple[str, str | None]]:
    """Return the token mixer and the kind of the attention bias of each layer."""
    if config.has_stages:
        return [pair for stage in range(len(config.depths)) for pair in config.mixers_of_stage(stage)]
    return list(zip(config.token_mixers, config.attention_biases))


def check_windows(name: str, config: PretrainedConfig) -> None:
    """Raise ValueError if windows of a Swin are cut to a smaller map, whose mixers what is fitted would not fit."""
    for stage, grid in enumerate(config.grid_sizes, 1):
        if min(grid) < config.window_size:
            raise ValueError(
                f"{name} has a map of {grid[0]}x{grid[1]} positions in stage {stage} at {config.image_size} pixels,"
                f" which is smaller than its windows of {config.window_size}x{config.window_size}: choose a larger"
                " --image_size."
            )
