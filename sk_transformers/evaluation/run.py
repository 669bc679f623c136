"""An evaluation, from the options of `sk-transformers evaluate` to a folder of figures and plots."""

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging as transformers_logging

from ..data.corruptions import CorruptingTransform, choose_corruptions, library_version, seen_image
from ..data.loaders import eval_loader
from ..data.options import DataOptions
from ..data.problems import eval_images, evaluation_inputs, load_images
from ..data.segmentation import mask_format
from ..data.transforms import Transform
from ..devices import use_all_cores
from ..files import check_free, write_json
from ..image_processing import without_resizing
from ..pretrained import at_image_size, class_names, weights_sha256
from ..provenance import provenance
from .options import EvaluationOptions
from .patch_attack import PatchAttack, attacked_accuracy
from .pictures import draw_predictions
from .plots import PLOTS, plot_robustness
from .predictions import map_labels, predict
from .problems import load_for
from .robustness import check_same_images, corrupted_accuracy, load_baseline, summarize_robustness
from .sliding_window import SizedPairs, SlidingWindow, SlidingWindowSegmenter, sliding_window


def evaluate_model(options: EvaluationOptions, data_options: DataOptions) -> tuple[Path | None, dict]:
    """Evaluate a model as the options say.

    Returns:
        The folder, with `evaluation.json` and plots: of one label an image `reliability.png` and `confusion.png`, of
        several `reliability.png` and `classes.png`, of masks or objects `classes.png` and
        `pictures/predictions.png`, and under corruptions `robustness.png`; and the figures. No folder on processes that
        are not the main one.

    Raises:
        ValueError: if model, data or baseline cannot be loaded or do not fit each other.
        FileExistsError: if the folder holds something already.
        ImportError: if corruptions are asked for and their library is not installed.
    """
    folder = Path(
        options.output_dir or Path("evaluations", f"{model_title(options.model)}-{Path(data_options.dataset).name}")
    )
    check_free(folder)
    if options.corruptions is not None:
        check_one_label(data_options, "--corruptions")
        library_version()  # or the error would come after the first pass
        options = replace(options, corruptions=choose_corruptions(options.corruptions))
    attack = None if options.patch_attack is None else PatchAttack.parse(options.patch_attack)
    if attack is not None:
        check_one_label(data_options, "--patch_attack")
    window = choose_window(options, data_options)
    transformers_logging.disable_progress_bar()
    accelerator = Accelerator(mixed_precision=options.mixed_precision)
    use_all_cores(accelerator)
    data = load_images(data_options, min_labels=1, hold_out=options.split != "all")
    if accelerator.is_main_process:
        Console(stderr=True).print(data.account, markup=False, highlight=False, soft_wrap=True)
    images = data.split("train" if options.split == "all" else options.split)
    model, processor, problem = load_for(data.problem_type, options.model)
    if options.image_size is not None:
        model, processor = at_image_size(model, processor, options.image_size)
    names = class_names(model.config)
    label_map = map_labels(data.labels, names)
    baseline = None
    if options.baseline is not None:
        baseline = load_baseline(options.baseline, options.corruptions or [], options.severities, seen_size(processor))

    height, width = seen_size(processor)
    if attack is not None and attack.size > min(height, width):
        raise ValueError(
            f"--patch_attack {options.patch_attack}: the patch does not fit into images of {height}x{width}."
        )
    network = model.eval()
    if window is not None:
        model, problem = SlidingWindowSegmenter(model, window), replace(problem, answers=lambda logits: logits)
        processor = without_resizing(processor)
    inputs = evaluation_inputs(data.problem_type, processor)
    loader = make_loader(options, data_options, images, inputs, len(data.labels))
    model, loader = accelerator.prepare(model, loader)
    predictions = predict(accelerator, model, loader, problem, label_map)
    figures = problem.summarize(predictions, names)
    record = {
        "model": options.model,
        "weights_sha256": weights_sha256(options.model),
        "dataset": data_options.dataset,
        "dataset_revision": data.revision,
        "split": data.validation_split or "validation" if options.split == "validation" else options.split,
        "labels_sha256": labels_digest(problem.names_of_labels(predictions, names)),
        **figures,
        **({} if options.image_size is None else {"image_size": seen_size(processor)}),
        **({} if window is None else {"sliding_window": {"size": window.size, "stride": window.stride}}),
        **provenance(),
    }
    if baseline is not None:
        check_same_images(baseline, record)
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(record, folder / "evaluation.json")
        PLOTS[problem.predictions](predictions, figures, names, folder)
        with accelerator.autocast():
            draw_predictions(network, processor, images, data.labels, data_options, folder, window)
    if attack is not None:
        figures["patch_attack"] = record["patch_attack"] = attacked_accuracy(
            accelerator, model, loader, label_map, attack, processor
        )
        if accelerator.is_main_process:
            write_json(record, folder / "evaluation.json")
    if options.corruptions is not None:
        figures["robustness"] = record["robustness"] = evaluate_robustness(
            options, data_options, accelerator, model, processor, images, label_map, figures["top1"], baseline
        )
        if accelerator.is_main_process:
            write_json(record, folder / "evaluation.json")
            plot_robustness(record["robustness"], figures["top1"], folder / "robustness.png", baseline)
    return (folder if accelerator.is_main_process else None), figures


def check_one_label(data_options: DataOptions, option: str) -> None:
    """Raise ValueError if there is no accuracy for an option to measure."""
    problem_type = data_options.problem_type
    if problem_type != "single_label":
        raise ValueError(f"{option} measures top-1 accuracy, which --problem_type {problem_type} does not have.")


def choose_window(options: EvaluationOptions, data_options: DataOptions) -> SlidingWindow | None:
    """Return the windows in which images are segmented, None for images as a whole.

    Raises:
        ValueError: if there are no masks, or windows and stride do not fit each other.
    """
    if options.sliding_window is None:
        return None
    problem_type = data_options.problem_type
    if problem_type != "segmentation":
        raise ValueError(f"--sliding_window is a segmenter's, and the data is {problem_type}: leave it out.")
    return sliding_window(options.sliding_window, options.window_stride, options.per_device_eval_batch_size)


def evaluate_robustness(
    options: EvaluationOptions,
    data_options: DataOptions,
    accelerator: Accelerator,
    model: torch.nn.Module,
    processor: BaseImageProcessor,
    images: Dataset,
    label_map: torch.Tensor,
    clean_top1: float,
    baseline: dict | None,
) -> dict[str, Any]:
    """Return the figures of `summarize_robustness`, with what they depend on: a pass for each of the conditions."""
    corruptions = options.corruptions or []
    transform = CorruptingTransform(processor)
    loader = accelerator.prepare(make_loader(options, data_options, images, transform, len(label_map)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not accelerator.is_main_process) as bar:
        task = bar.add_task("corruptions x severities", total=len(corruptions) * len(options.severities))
        top1 = corrupted_accuracy(
            accelerator,
            model,
            loader,
            transform,
            corruptions,
            options.severities,
            label_map,
            report=lambda: bar.advance(task),
        )
    return {
        "library": library_version(),
        "image_size": seen_size(processor),
        **summarize_robustness(clean_top1, top1, options.severities, baseline),
    }


def make_loader(
    options: EvaluationOptions, data_options: DataOptions, images: Dataset, transform: Transform, classes: int
) -> torch.utils.data.DataLoader:
    """Return batches of images with their labels or masks, which are of so many classes."""
    images_of = eval_images(data_options, classes)
    if options.sliding_window is not None:
        images_of = partial(SizedPairs, masks=mask_format(data_options, classes))
    return eval_loader(
        images,
        transform,
        options.per_device_eval_batch_size,
        data_options.num_workers,
        data_options.skip_unreadable,
        images_of,
    )


def seen_size(processor: BaseImageProcessor) -> list[int]:
    """Return `[height, width]` in pixels of what the image processor makes of a square image."""
    return list(seen_image(processor, Image.new("RGB", (64, 64))).shape[:2])


def labels_digest(names_of_labels: list[str]) -> str:
    """Return what two evaluations of the same images share, wherever these lie and however the model orders classes."""
    return hashlib.sha256("\n".join(names_of_labels).encode()).hexdigest()


def model_title(model: str) -> str:
    """Return what to call a model's results: the run's name for the repo folder of a run."""
    path = Path(model)
    return path.parent.name if path.name == "model" else path.name
