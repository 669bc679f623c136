"""An export to ONNX, from the options of `sk-transformers export-onnx` to the folder, and what it costs in accuracy."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers.utils import logging as transformers_logging

from ..data.labeled import load_data
from ..data.loaders import UNREADABLE, eval_loader
from ..data.options import DataOptions
from ..data.transforms import eval_transform
from ..hub.graph_runtimes import FLOAT_MODEL, QUANTIZED_MODEL, Graph, load_onnxruntime
from ..hub.onnx_export import export_onnx
from ..pretrained import class_names, load_classifier
from ..registration import is_ours
from .predictions import map_labels
from .problems import choose_problem

BATCH_SIZE = 128
FILES = (FLOAT_MODEL, QUANTIZED_MODEL)


def run_export(
    model: str, output_dir: str, dynamic_size: bool = False, data_options: DataOptions | None = None
) -> dict[str, Any]:
    """Write a classifier as ONNX and measure it on a data set's validation split, if there is one.

    Returns:
        What `onnx/export.json` holds: the report of `export_onnx`, and under `top1` the data and the fraction of its
        images that each file classifies right.

    Raises:
        ValueError: if model or data cannot be loaded or do not fit together.
        FileExistsError: if the folder holds something else already.
    """
    transformers_logging.disable_progress_bar()
    if data_options is not None and data_options.problem_type != "single_label":
        raise ValueError(
            "--dataset: the check of an export counts right first answers, which --problem_type multi_label does not"
            " have; leave the data out, and evaluate the model by sk-transformers evaluate."
        )
    data = None if data_options is None else load_data(data_options)
    network, processor = load_classifier(model)
    if not is_ours(network):
        raise ValueError(f"model {model} is a {type(network).__name__}, expected one of this package's networks.")
    measure = None
    if data is not None and data_options is not None:
        choose_problem(data.problem_type, model, network.config)
        label_map = map_labels(data.labels, class_names(network.config))
        loader = eval_loader(
            data.validation,
            eval_transform(processor),
            BATCH_SIZE,
            data_options.num_workers,
            data_options.skip_unreadable,
        )
        measure = partial(measure_files, data.name, loader, label_map)
    return export_onnx(network, processor, output_dir, dynamic_size, measure)


def measure_files(name: str, loader: DataLoader, label_map: torch.Tensor, *files: Path) -> dict[str, Any]:
    """Return under `top1` the data and the fraction of its images that the float and the quantized file get right.

    ValueError if none can be read.
    """
    right, images = count_right([load_onnxruntime(file) for file in files], loader, label_map)
    if images == 0:
        raise ValueError(f"none of the validation images of {name} can be read: there is nothing to measure.")
    accuracies = {file: float(correct / images) for file, correct in zip(FILES, right)}
    return {"top1": {"dataset": name, "split": "validation", "images": images, **accuracies}}


def count_right(graphs: Sequence[Graph], loader: DataLoader, label_map: torch.Tensor) -> tuple[np.ndarray, int]:
    """Return how many images each graph classifies right, and how many there are. Each is read once."""
    right, images = np.zeros(len(graphs)), 0
    for batch in loader:
        readable = batch["labels"] != UNREADABLE
        labels = label_map[batch["labels"][readable]].numpy()
        pixel_values = batch["pixel_values"][readable].numpy()
        right += [(graph(pixel_values).argmax(axis=1) == labels).sum() for graph in graphs]
        images += len(labels)
    return right, images
