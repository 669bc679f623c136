"""The model card: metadata from the model and its measured results, text from a template.

The template is data of this package, because every export needs it where the package is installed without its checkout;
`model_cards/` in the checkout has the cards that it makes of the zoo.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PretrainedConfig, PreTrainedModel

from ...complexity import count_macs
from ...models.configuration_checks import size_pair
from ...pretrained import class_names
from ...registration import auto_class_of
from ...zoo import get_variant
from .diagram import STATIC_MIXERS, draw, mixer_summary
from .merge import sign

TEMPLATE = Path(__file__).parents[1] / "templates" / "card.md"
LICENSE = "apache-2.0"
SECTIONS = [  # in the template's order
    "#", "## What it is", "## Intended use and limits", "## How to use it", "## How it was trained", "## Results",
    "## Evaluation", "## Published results", "## Size and speed", "## Examples", "## Plots", "## License",
    "## Citation",
]  # fmt: skip
CLASSIFYING = ("image-classification", "image-segmentation", "object-detection")  # images, or what is in them
VERBS = {
    "image-classification": "classify",
    "image-segmentation": "segment",
    "object-detection": "detect",
    "image-feature-extraction": "embed",
}
NAMES_OF_TASKS = {
    "image-classification": "An image classifier",
    "image-segmentation": "A semantic segmenter (UperNet)",
    "object-detection": "A detector of objects and their masks (Mask R-CNN)",
    "image-feature-extraction": "A network that makes features of images,",
}
KINDS = {
    "skvit": "a Vision Transformer",
    "skcait": "a Vision Transformer with class attention (CaiT)",
    "skformer": "a four-stage hybrid (MetaFormer)",
    "skswin": "a Swin Transformer",
    "skcvt": "a convolutional Vision Transformer (CvT)",
}  # by model type
MAX_NAMED_CLASSES = 20  # more names than that are for config.json


@dataclass(frozen=True)
class OriginFacts:
    """Where a network and its weights come from.

    Args:
        variant: its name in the zoo, whose published results are then shown, as the authors'.
        license: of the weights, as the Hub names it.
        base_model: the Hub id of the model that it started from.
        datasets: Hub ids of its training data.
    """

    variant: str | None = None
    license: str = LICENSE
    base_model: str | None = None
    datasets: list[str] | None = None


@dataclass(frozen=True)
class TrainingFacts:
    """How the weights were trained, and what was measured in that run.

    Args:
        summary: printed lines by what they say: `{"Command": ..., "Seed": ..., ...}`.
        results: what was measured, the first of it what counts; they go into the metadata and a table.
        recipe: the options of the run.
        plots: titles of pictures by their files in the repo.
        speeds: what was measured, as printed lines.
    """

    summary: dict[str, Any]
    results: list[EvalResult] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    plots: dict[str, str] = field(default_factory=dict)
    speeds: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RepoFacts:
    """What is in the repo beside weights and code, and where it is.

    Args:
        repo_id: where it is on the Hub; `org/NAME` when None.
        revision: the tag to load it by.
        examples: images with the model's answers: `{"file": ..., "title": ..., "output": [{"label": ..., "score":
            ...}]}`, for the metadata (`widget`) and a table.
        plots: titles of pictures by their files in the repo.
        has_handler: whether it has `handler.py`, as `export()` gives it to classifiers.
        has_decoder: whether it has `decoding.py`, which `export()` gives to all.
        onnx: what `onnx/export.json` in it holds.
        weights_dtype: in which its weights are kept; the model's own when None.
    """

    repo_id: str | None = None
    revision: str | None = None
    examples: list[dict[str, Any]] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)
    has_handler: bool = True
    has_decoder: bool = True
    onnx: dict[str, Any] | None = None
    weights_dtype: torch.dtype | None = None


def create_card(
    model: PreTrainedModel,
    name: str,
    training: TrainingFacts | None = None,
    *,
    origin: OriginFacts | None = None,
    evaluations: Sequence[dict[str, Any]] = (),
    repo: RepoFacts | None = None,
) -> ModelCard:
    """Write the card of a model. What is not given is not in it.

    Args:
        model: one of this package's; on the meta device will do.
        name: the model's name, the card's title.
        training: None for fresh weights, which the card's first line then says.
        origin: by default a network and weights of this package's.
        evaluations: what `sk-transformers evaluate` writes, each with its `plots`.
        repo: by default a repo of weights, code and handler alone.
    """
    config, origin, repo = model.config, origin or OriginFacts(), repo or RepoFacts()
    task = task_of(model)
    data = card_metadata(model, name, training, origin, evaluations, repo)
    parameters, in_keys = model.num_parameters(), static_key_parameters(model)
    published = get_variant(origin.variant).published if origin.variant else None
    height, width = size_pair("image_size", config.image_size)
    dtype = repo.weights_dtype or model.dtype
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        summary=summary(config, task, millions(parameters)),
        drawing=draw(model),
        parameters=millions(parameters),
        key_parameters=millions(in_keys, parameters) if in_keys else None,
        weights_size=f"{file_size(parameters * dtype.itemsize)} ({str(dtype).removeprefix('torch.')})",
        macs=multiply_adds(count_macs(config, auto_class=auto_class_of(type(model).__name__))),
        image_size=f"{height} x {width}",
        classes=name_classes(config) if task in CLASSIFYING else None,
        limits=limits(config, task),
        family=config.model_type,
        several_labels=config.problem_type == "multi_label_classification",
        pipeline_tag=task,
        verb=VERBS[task],
        repo_id=repo.repo_id or f"org/{name}",
        repo=repo,
        origin=origin,
        training=training,
        evaluations=evaluations,
        published=published if published and published.top1 else None,
        evaluation_figures={key: title for key, title in COLUMNS.items() if any(key in one for one in evaluations)},
        evaluation_speeds=speeds_of(evaluations),
        onnx=onnx_facts(repo.onnx) if repo.onnx else None,
    )
    return ModelCard(sign(str(card)))


def card_metadata(
    model: PreTrainedModel,
    name: str,
    training: TrainingFacts | None,
    origin: OriginFacts,
    evaluations: Sequence[dict[str, Any]],
    repo: RepoFacts,
) -> ModelCardData:
    """Return the metadata of a card, which the Hub reads; see `create_card`."""
    task = task_of(model)
    evaluated = [result for one in evaluations for result in evaluation_results(one, task)]
    results = [*(training.results if training else []), *evaluated]
    key_tags = ["static-key-attention"] if static_key_parameters(model) else []
    return ModelCardData(
        license=origin.license,
        library_name="transformers",
        pipeline_tag=task,
        base_model=origin.base_model,
        datasets=origin.datasets,
        metrics=sorted({result.metric_type for result in results}) or None,
        tags=["vision", *key_tags, model.config.model_type],
        model_name=name,
        eval_results=results or None,
        widget=[
            {"src": example["file"], "example_title": example["title"], "output": example["output"]}
            for example in repo.examples
        ]
        or None,
    )


def task_of(model: PreTrainedModel) -> str:
    """Return what the Hub, and `pipeline()`, call what a model does."""
    name = type(model).__name__
    if "ForImageClassification" in name:
        return "image-classification"
    if "ForObjectDetection" in name:
        return "object-detection"
    return "image-segmentation" if "ForSemanticSegmentation" in name else "image-feature-extraction"


def summary(config: PretrainedConfig, task: str, parameters: str) -> str:
    """Return a sentence on what the network is."""
    what = NAMES_OF_TASKS[task]
    if task == "object-detection" and not config.detection_masks:
        what = "A detector of objects (Faster R-CNN)"
    kind = KINDS[config.model_type]
    return f"{what} with {parameters} parameters: {kind} whose tokens are mixed by {mixer_summary(config)}."


def static_key_parameters(model: PreTrainedModel) -> int:
    """Return how many of the parameters are keys, their biases among them."""
    mixers: list[Any] = [module for module in model.modules() if hasattr(module, "static_keys")]
    return sum(parameter.numel() for mixer in mixers for parameter in mixer.static_keys())


def millions(count: int, total: int | None = None) -> str:
    """Return a number of parameters as text, in the unit of the total that it is a part of."""
    return f"{count / 1e6:.2f} M" if (total or count) >= 1e6 and count >= 5e3 else f"{count:,}"


def multiply_adds(count: int) -> str:
    """Return a number of multiply-adds as text."""
    return f"{count / 1e9:#.3g} G" if count >= 1e8 else f"{count / 1e6:#.3g} M"


def file_size(size: int) -> str:
    """Return a number of bytes as text."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def name_classes(config: PretrainedConfig) -> str:
    """Return `"3 of them: ant, bee, cicada"`, or only how many where they are many or have no names."""
    labels = class_names(config)
    if len(labels) > MAX_NAMED_CLASSES:
        return f"{len(labels)} of them, named in `config.json`"
    if labels == [f"LABEL_{index}" for index in range(len(labels))]:
        return f"{len(labels)} of them, without names"
    separator = "; " if any("," in label for label in labels) else ", "
    return f"{len(labels)} of them: {separator.join(labels)}"


def limits(config: PretrainedConfig, task: str) -> list[str]:
    """Say what the network does on images of other sizes than its own."""
    height, width = size_pair("image_size", config.image_size)
    has_static_keys = bool(set(config.token_mixers) & set(STATIC_MIXERS))
    rows = "A static key has a row for each position of the map that it was made for. " if has_static_keys else ""
    if not config.has_stages:
        what = "positions and static keys are" if has_static_keys else "positions are"
        when = (
            "With `interpolate_pos_encoding=True` it"
            if config.strict_image_size and task != "image-segmentation"
            else "It"
        )
        how = f"{when} takes other sizes, and {what} resized like an image."
    elif config.model_type == "skswin":
        return [f"It was made for images of {height} x {width} pixels. {window_limits(config, has_static_keys)}"]
    elif not has_static_keys:
        how = "It takes other sizes as they are."
    elif config.static_key_resolution == "window":
        how = "On images of another size the map is cut into windows of that grid."
    else:
        how = "On images of another size the keys are resized like an image."
    return [f"It was made for images of {height} x {width} pixels. {rows}{how}"]


def window_limits(config: PretrainedConfig, has_static_keys: bool) -> str:
    """Say of a Swin what its keys belong to and how it takes images of other sizes."""
    cut = f"It takes other sizes: maps are cut into as many windows of {config.window_size} x {config.window_size} as"
    if not has_static_keys:
        return f"{cut} they need."
    if config.window_keys == "separate":
        owned = "A static key belongs to one window of the map that it was made for."
        return f"{owned} {cut} they need, and keys are resized."
    return f"A static key has a row for each position of a window, and is the same for every window. {cut} they need."


COLUMNS = {
    "top1": "top-1", "top5": "top-5", "balanced_accuracy": "balanced accuracy",
    "mean_average_precision": "mean average precision", "micro_f1": "micro F1", "macro_f1": "macro F1",
    "exact_match": "exact match", "mean_iou": "mean IoU", "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy", "box_ap": "box AP", "box_ap50": "box AP50", "mask_ap": "mask AP",
    "mask_ap50": "mask AP50", "loss": "loss", "calibration_error": "calibration error",
}  # fmt: skip
MEASURED = (  # figure, title and type of metric; each problem type has its own
    ("top1", "Top-1 accuracy", "accuracy"),
    ("top5", "Top-5 accuracy", "accuracy"),
    ("balanced_accuracy", "Balanced accuracy", "accuracy"),
    ("mean_average_precision", "Mean average precision", "mean_average_precision"),
    ("micro_f1", "Micro F1", "f1"),
    ("macro_f1", "Macro F1", "f1"),
    ("exact_match", "Exact match", "exact_match"),
    ("mean_iou", "Mean IoU", "mean_iou"),
    ("mean_accuracy", "Mean accuracy of the classes", "accuracy"),
    ("pixel_accuracy", "Pixel accuracy", "accuracy"),
    ("box_ap", "Box AP", "mean_average_precision"),
    ("box_ap50", "Box AP50", "mean_average_precision"),
    ("mask_ap", "Mask AP", "mean_average_precision"),
    ("mask_ap50", "Mask AP50", "mean_average_precision"),
)


def evaluation_results(evaluation: dict[str, Any], task: str) -> list[EvalResult]:
    """Return an evaluation's figures of a model for this task as metadata."""
    dataset = Path(evaluation["dataset"]).name
    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=evaluation["split"],
            metric_type=kind,
            metric_name=f"{title}, evaluated",
            metric_value=round(evaluation[key], 4),
        )
        for key, title, kind in MEASURED
        if isinstance(evaluation.get(key), float)
    ]


def onnx_facts(report: dict[str, Any]) -> dict[str, Any]:
    """Return what a card says of ONNX files: sizes, and where they were measured the data and accuracies."""
    measured = report.get("top1") or {}
    facts = {"sizes": {file: file_size(size) for file, size in report["bytes"].items()}}
    if all(file in measured for file in report["bytes"]):
        facts |= {"dataset": Path(measured["dataset"]).name, "split": measured["split"], "images": measured["images"]}
        facts["accuracy"] = measured
    return facts


def speeds_of(evaluations: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the speeds that evaluations measured, as printed lines."""
    measured = [one for one in evaluations if one.get("images_per_second")]
    return {
        f"Speed on {Path(one['dataset']).name}": f"{one['images_per_second']:.0f} images per second and process"
        f" ({one.get('hardware', 'hardware not recorded')})"
        for one in measured
    }
