"""The model that a run starts from, and the image processor that goes with it."""

from pathlib import Path

from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ConvNextImageProcessor,
    PretrainedConfig,
    PreTrainedModel,
    ViTImageProcessor,
)
from transformers.image_processing_utils import BaseImageProcessor

from ..hub.export import check_exportable
from ..models.configuration_checks import size_pair
from ..zoo import VARIANTS, create_model, get_variant


def load_model(
    name: str, id2label: dict[int, str], drop_path_rate: float | None = None
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """The classifier called `name`, with a head for these labels, and its image processor.

    Args:
        name: a repo folder or a Hub id to start from, or a name of the zoo for fresh weights. A head for another
            number of classes is replaced by a fresh one.
        id2label: the names of the classes.
        drop_path_rate: stochastic depth; the model's own when None.

    Raises:
        ValueError: if there is no such model.
        TypeError: if it is none of ours, and could not be exported with its code.
    """
    settings = {"id2label": id2label, "label2id": {label: i for i, label in id2label.items()}}
    if drop_path_rate is not None:
        settings["drop_path_rate"] = drop_path_rate
    if name in VARIANTS or not (Path(name).is_dir() or "/" in name):
        get_variant(name)
        model = create_model(name, **settings)
        return model, fresh_image_processor(model.config)
    try:
        model = AutoModelForImageClassification.from_pretrained(name, ignore_mismatched_sizes=True, **settings)
        processor = AutoImageProcessor.from_pretrained(name)
    except OSError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"--model {name} could not be loaded: {reason}") from error
    check_exportable(model)
    return model, processor


def fresh_image_processor(config: PretrainedConfig) -> BaseImageProcessor:
    """The stock image processor that makes what a network of this configuration takes."""
    height, width = size_pair("image_size", config.image_size)
    if config.model_type == "skformer" and height == width:
        return ConvNextImageProcessor(size={"shortest_edge": height}, crop_pct=1.0)  # MetaFormer's evaluation
    return ViTImageProcessor(size={"height": height, "width": width})
