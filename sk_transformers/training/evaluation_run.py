"""An evaluation, from the options of `scripts/evaluate_model.py` to a folder of figures and plots."""

import argparse
import json
from pathlib import Path

from accelerate import Accelerator
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.utils import logging as transformers_logging

from ..hub.export import check_free
from .augmentation import eval_transform
from .batches import eval_loader
from .evaluation import map_labels, predict, summarize
from .plots import plot_confusion, plot_reliability
from .record import provenance
from .setup import use_all_cores
from .sources import load_image_data


def evaluate_model(args: argparse.Namespace) -> tuple[Path | None, dict]:
    """Evaluate a model as the options say.

    Returns:
        The folder, with `evaluation.json`, `confusion.png` and `reliability.png`, and the figures; no folder on
        processes that are not the main one.

    Raises:
        ValueError: if model or data cannot be loaded, or the model lacks a class of the data's.
        FileExistsError: if the folder holds something already.
    """
    folder = Path(args.output_dir or Path("evaluations", f"{model_title(args.model)}-{Path(args.dataset).name}"))
    check_free(folder)
    transformers_logging.disable_progress_bar()
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    use_all_cores(accelerator)
    data = load_image_data(args.dataset, args.train_val_split, args.split_seed)
    try:
        model = AutoModelForImageClassification.from_pretrained(args.model)
        processor = AutoImageProcessor.from_pretrained(args.model)
    except OSError as error:
        raise ValueError(f"--model {args.model} could not be loaded: {str(error).strip().splitlines()[0]}") from error
    label_map = map_labels(data.labels, model.config.id2label)
    class_names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    loader = eval_loader(
        data.split(args.split), eval_transform(processor), args.per_device_eval_batch_size, args.num_workers
    )
    model, loader = accelerator.prepare(model, loader)
    predictions = predict(accelerator, model, loader, label_map)
    figures = summarize(predictions, class_names)
    if not accelerator.is_main_process:
        return None, figures

    folder.mkdir(parents=True, exist_ok=True)
    plot_confusion(predictions, class_names, folder / "confusion.png")
    plot_reliability(predictions, figures["calibration_error"], folder / "reliability.png")
    record = {"model": args.model, "dataset": args.dataset, "split": args.split, **figures, **provenance()}
    (folder / "evaluation.json").write_text(json.dumps(record, indent=2) + "\n")
    return folder, figures


def model_title(model: str) -> str:
    """What to call a model's results: the run's name for the repo folder of a run."""
    path = Path(model)
    return path.parent.name if path.name == "model" else path.name
