"""Load, resize and start classifiers, each with its image processor."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import cached_file

from .errors import first_line
from .image_processing import (
    detection_processor,
    image_processor_for,
    segmentation_processor,
    with_output_size,
)
from .models.grids import resize_grid
from .registration import is_ours
from .zoo import TRAINED, VARIANTS, create_config, get_variant, trained_source

logger = logging.getLogger(__name__)
LOADING_ERRORS = (OSError, ValueError, SafetensorError)  # of what is no repo, and of damaged files


def load_model(name: str, id2label: dict[int, str], **overrides: Any) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return the classifier called `name`, with a head for these labels, and its image processor.

    See `_load_to_train`.
    """
    return _load_to_train(AutoModelForImageClassification, name, id2label, **overrides)


def load_segmenter_to_train(
    name: str, id2label: dict[int, str], **overrides: Any
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return the segmenter called `name`, with a head for these classes of pixels, and its image processor.

    A classifier's repo folder or Hub id gives the network below the head; see `_load_dense_to_train`.
    """
    return _load_dense_to_train(AutoModelForSemanticSegmentation, segmentation_processor, name, id2label, **overrides)


def load_detector_to_train(
    name: str, id2label: dict[int, str], **overrides: Any
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return the detector called `name`, with heads for these classes of objects, and its image processor.

    A classifier's repo folder or Hub id gives the network below the heads; see `_load_dense_to_train`.
    """
    return _load_dense_to_train(AutoModelForObjectDetection, detection_processor, name, id2label, **overrides)


def _load_dense_to_train(
    auto_class: Any,
    processor_for: Callable[[BaseImageProcessor, Any], BaseImageProcessor],
    name: str,
    id2label: dict[int, str],
    **overrides: Any,
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return `_load_to_train`'s network, and the image processor of its task.

    With `static_key_resolution="window"` the static keys stay as they are, and `image_size` is that of the images
    alone: keys of a whole large image would attend to all of it.
    """
    images = overrides.pop("image_size", None) if overrides.get("static_key_resolution") == "window" else None
    model, processor = _load_to_train(auto_class, name, id2label, **overrides)
    processor = processor_for(processor, model.config.image_size)
    return model, processor if images is None else with_output_size(processor, images)


def _load_to_train(
    auto_class: Any, name: str, id2label: dict[int, str], **overrides: Any
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return a network with a head for these labels, and its image processor.

    Args:
        auto_class: of transformers, which makes networks with the head.
        name: a repo folder or a Hub id to start from, or a name of the zoo for fresh weights.
        id2label: the names of the classes. Those that the head knows keep their weights, whatever their number was.
        overrides: fields of the configuration. With another `image_size`, pretrained positions and static keys are
            resized.

    Raises:
        ValueError: if there is no such model, or no such field, or it is none of ours, so that its code would not
            travel with it.
    """
    if name in VARIANTS or not (Path(name).is_dir() or "/" in name):
        get_variant(name)
        label2id = {label: i for i, label in id2label.items()}
        config = create_config(name, id2label=id2label, label2id=label2id, **overrides)
        if type(config) not in auto_class._model_mapping:
            raise ValueError(f"--model {name}: its family has no {auto_class.__name__}: choose another network.")
        model = auto_class.from_config(config)
        return model, image_processor_for(model.config.image_size)
    image_size = overrides.pop("image_size", None)
    overrides.setdefault("dtype", torch.float32)  # weights are kept in 16 bits, too, in which nothing trains
    try:
        model, report = auto_class.from_pretrained(
            name, ignore_mismatched_sizes=True, output_loading_info=True, **overrides
        )
        processor = AutoImageProcessor.from_pretrained(name)
    except LOADING_ERRORS as error:
        raise ValueError(f"--model {name} could not be loaded: {first_line(error)}") from error
    if not is_ours(model):
        raise ValueError(
            f"--model {name} is a {type(model).__name__}, expected one of this package's networks: their code goes"
            " with the weights. Others can be a --teacher."
        )
    check_only_the_head_is_fresh(name, model, report)
    matched = set_classes(model, id2label)
    if not report["missing_keys"] and matched < len(id2label):
        logger.warning(
            "--model %s: its head knows %d of the %d classes by name; the others start afresh.",
            name, matched, len(id2label),
        )  # fmt: skip
    return (model, processor) if image_size is None else resize(model, processor, image_size)


def set_classes(model: PreTrainedModel, id2label: dict[int, str]) -> int:
    """Give a model these classes. A class that it knows by name keeps its weights, others start afresh.

    Returns:
        How many it knows.
    """
    old = {label: index for index, label in enumerate(class_names(model.config))}
    matched = [(index, old[label]) for index, label in id2label.items() if label in old]
    if matched == [(index, index) for index in range(max(len(old), len(id2label)))]:
        return len(matched)
    for name, rows in last_layers(model).items():
        layer: Any = model.get_submodule(name)
        bias, of_no_class = layer.bias is not None, len(layer.weight) - rows * len(old)
        outputs = of_no_class + rows * len(id2label)
        if isinstance(layer, nn.Linear):
            fresh = nn.Linear(layer.in_features, outputs, bias)
        else:  # of pixels
            fresh = nn.Conv2d(layer.in_channels, outputs, layer.kernel_size, bias=bias)
        fresh = fresh.to(layer.weight)
        fresh.__dict__ |= {"initial_std": layer.initial_std} if hasattr(layer, "initial_std") else {}
        model._init_weights(fresh)
        pairs = [(row, row) for row in range(of_no_class)]
        pairs += [
            tuple(of_no_class + rows * index + row for index in classes) for classes in matched for row in range(rows)
        ]
        new_rows, old_rows = (list(side) for side in zip(*pairs)) if pairs else ([], [])
        with torch.no_grad():
            for parameter, known in zip(fresh.parameters(), layer.parameters()):
                parameter[new_rows] = known[old_rows]
        model.set_submodule(name, fresh)
    model.config.id2label = dict(id2label)
    model.config.label2id = {label: index for index, label in id2label.items()}
    return len(matched)


def last_layers(model: PreTrainedModel) -> dict[str, int]:
    """Return how many outputs for each class the linear layers and convolutions have that have any, by their names.

    Outputs for no class, such as a detector's for the background, come before them.
    """
    labels = [str(index) for index in range(len(class_names(model.config)) + 1)]
    settings = {"id2label": dict(enumerate(labels)), "label2id": {label: int(label) for label in labels}}
    another = type(model.config).from_dict({**model.config.to_dict(), **settings})
    with torch.device("meta"):
        larger: Any = dict(type(model)(another).named_modules())
    return {
        name: larger[name].weight.shape[0] - module.weight.shape[0]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and larger[name].weight.shape != module.weight.shape
    }


def check_no_other_head(name: str) -> None:
    """Raise ValueError if a model tells classes of pixels or objects, where one of images is expected."""
    try:
        architectures = AutoConfig.from_pretrained(source_of(name)).architectures or []
    except LOADING_ERRORS:  # which loading will explain
        return
    if any(architecture.endswith("ForSemanticSegmentation") for architecture in architectures):
        raise ValueError(
            f"model {name} is a segmenter, expected a classifier: predict takes it with --masks, and evaluate with"
            " --problem_type segmentation."
        )
    if any(architecture.endswith("ForObjectDetection") for architecture in architectures):
        raise ValueError(
            f"model {name} is a detector, expected a classifier: predict takes it with --objects, and evaluate with"
            " --problem_type detection."
        )


def load_classifier(name: str) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return the trained classifier of a folder, Hub id or name of the zoo, and its image processor.

    ValueError if there is none. It is in float32, whatever its weights are kept in.
    """
    check_no_other_head(name)
    return _load_trained(AutoModelForImageClassification, name, "a trained classifier")


def load_segmenter(name: str) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return the trained segmenter of a folder or Hub id, and its image processor.

    ValueError if there is none. It is in float32, whatever its weights are kept in.
    """
    return _load_trained(AutoModelForSemanticSegmentation, name, "a trained segmenter")


def load_detector(name: str) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return the trained detector of a folder or Hub id, and its image processor.

    ValueError if there is none. It is in float32, whatever its weights are kept in.
    """
    return _load_trained(AutoModelForObjectDetection, name, "a trained detector")


def load_base_model(name: str) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return the network below the head of a repo folder, Hub id or name of the zoo, and its image processor.

    ValueError if it fails. It takes a repo without a head, too, and is in float32, whatever its weights are kept in.
    """
    return _load_trained(AutoModel, name, "a trained network")


def _load_trained(auto_class: Any, name: str, expected: str) -> tuple[PreTrainedModel, BaseImageProcessor]:
    name = source_of(name)
    try:
        model, report = auto_class.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(name)
    except LOADING_ERRORS as error:
        raise ValueError(f"model {name} could not be loaded: {first_line(error)}") from error
    if report["missing_keys"]:
        raise ValueError(f"model {name} is not {expected}: its weights lack {min(report['missing_keys'])}.")
    return model, processor


def weights_sha256(name: str) -> str | None:
    """Return the SHA-256 of the weights in a repo folder, Hub id or name of the zoo; None of several files."""
    file = cached_file(source_of(name), "model.safetensors", _raise_exceptions_for_missing_entries=False)
    return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def source_of(name: str) -> str:
    """Return the folder or Hub id of a trained network that the zoo has a name for, and any other as it is."""
    return trained_source(name) if is_trained_name(name) else name


def is_trained_name(name: str) -> bool:
    """Return whether a name is a trained network's, and not that of a model's folder here; a run's has none itself."""
    return name in TRAINED and not Path(name, "config.json").is_file()


def class_names(config: PretrainedConfig) -> list[str]:
    """Return the names of a classifier's classes, in the order of its logits."""
    id2label: Any = config.id2label or {}
    return [str(id2label[index]) for index in range(len(id2label))]


def class_probabilities(logits: torch.Tensor, config: PretrainedConfig) -> torch.Tensor:
    """Return the probabilities of classes, `(..., classes)`, as transformers' pipeline and the endpoint handler do.

    Softmax, or of several labels an image, and of a single class, a sigmoid of each.
    """
    several_labels = config.problem_type == "multi_label_classification" or config.num_labels == 1
    return logits.sigmoid() if several_labels else logits.softmax(dim=-1)


def check_only_the_head_is_fresh(name: str, model: PreTrainedModel, report: dict[str, Any]) -> None:
    """Raise ValueError if pretrained weights of the backbone were dropped, as an overridden configuration does."""
    fresh = [*report["missing_keys"], *(key if isinstance(key, str) else key[0] for key in report["mismatched_keys"])]
    backbone = sorted(key for key in fresh if key.startswith(f"{model.base_model_prefix}."))
    if backbone:
        raise ValueError(
            f"--model {name}: its weights do not fit the configuration asked for ({backbone[0]} and"
            f" {len(backbone) - 1} more): leave such fields out, or start afresh from a name of the zoo."
        )


def at_image_size(
    model: PreTrainedModel, processor: BaseImageProcessor, image_size: int | list[int]
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return a network and an image processor for images of another size, as its static keys are meant to take them.

    With `static_key_resolution="window"` the network stays as it is, and cuts its maps into windows; else it is
    `resize`'s.

    Raises:
        ValueError: if the network is none of this package's, or cannot be resized.
    """
    if not is_ours(model):
        raise ValueError(
            f"--image_size {image_size}: a {type(model).__name__} is none of this package's networks, whose positions"
            " and static keys can be resized: leave it out."
        )
    if getattr(model.config, "static_key_resolution", "interpolate") == "window":
        return model, with_output_size(processor, image_size)
    return resize(model, processor, image_size)


def resize(
    model: PreTrainedModel, processor: BaseImageProcessor, image_size: int | list[int]
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return the same network for images of another size: positions and static keys resized, the rest copied.

    Raises:
        ValueError: if a parameter is tied to the size in another way, as a random mixing matrix is.
    """
    resized = type(model)(type(model.config).from_dict({**model.config.to_dict(), "image_size": image_size}))
    state, modules = model.state_dict(), dict(model.named_modules())
    new: Any
    for name, new in resized.named_modules():
        old: Any = modules[name]
        for own, parameter in new.named_parameters(recurse=False):
            weights = getattr(old, own).detach()
            if weights.shape != parameter.shape:
                interpolation = getattr(new, "position_interpolation", "auto")
                grid, new_grid = (getattr(module, "key_grid_size", module.grid_size) for module in (old, new))
                state[f"{name}.{own}"] = resize_grid(weights, grid, new_grid, new.num_class_tokens, interpolation)
        for own, buffer in new.named_buffers(recurse=False):
            if getattr(old, own).shape != buffer.shape:
                raise ValueError(f"image_size: {name}.{own} is made for one image size and cannot be resized.")
    resized.load_state_dict(state)
    return resized, with_output_size(processor, image_size)
