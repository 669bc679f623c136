"""A classifier as ONNX, in the folder layout that transformers.js and Optimum read.

`onnx/model.onnx` has the weights in float32, `onnx/model_quantized.onnx` those of its matrix products in 8 bits.
"""

import json
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..models.configuration_checks import size_pair
from ..models.configuration_skformer import MIN_IMAGE_SIZE
from .export import check_exportable, check_free, complete_auto_map, make_readable

FLOAT_MODEL, QUANTIZED_MODEL = "onnx/model.onnx", "onnx/model_quantized.onnx"
REPORT = "onnx/export.json"
TOLERANCE = 1e-4  # of logits, beside torch's
OPSET = 20


class PixelsToLogits(torch.nn.Module):
    """A classifier with one input and one output, and in a graph for images of all sizes a check of their size."""

    def __init__(self, model: PreTrainedModel, min_size: tuple[int, int] | None):
        super().__init__()
        self.model = model
        self.min_size = min_size
        self.options = {"interpolate_pos_encoding": True} if min_size and model.config.model_type == "skvit" else {}

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if self.min_size is not None:
            # ONNX cannot raise. A pixel that a smaller image does not have makes a runtime refuse it.
            height, width = self.min_size
            pixel_values = pixel_values + 0 * pixel_values[:, :, height - 1, width - 1][:, :, None, None]
        return self.model(pixel_values, **self.options).logits


def export_onnx(
    model: PreTrainedModel, image_processor: BaseImageProcessor, folder: str | Path, dynamic_size: bool = False
) -> dict[str, Any]:
    """Write a classifier as ONNX, in float32 and quantized, and check it against torch.

    Args:
        model: an SKViT or SKFormer classifier in float32. It is set to evaluation mode.
        image_processor: the image processor of the model's repo.
        folder: a repo folder of this model, which gets the folder `onnx/`; or a new one, which gets `config.json` and
            `preprocessor_config.json` besides.
        dynamic_size: whether the graph takes images of all sizes from the smallest on that `smallest_image` tells, as
            the model does, and not only those that the image processor makes. The batch is always dynamic.

    Returns:
        What `onnx/export.json` holds: the smallest image, the largest difference of logits to torch's on random images,
        and the files' sizes in bytes.

    Raises:
        TypeError: if the model is not one of this package's classifiers.
        ValueError: if it cannot take images of all sizes, or ONNX Runtime's logits are not torch's to 1e-4.
        FileExistsError: if the folder holds something else, or an export already.
    """
    check_exportable(model)
    if not hasattr(model, "classifier"):
        raise TypeError(f"export_onnx takes a classifier, not {type(model).__name__}.")
    if model.dtype != torch.float32:
        raise ValueError(f"The model is {model.dtype}, expected torch.float32: use model.float().")
    folder = Path(folder)
    is_repo = check_target(folder, model)
    model.eval()
    min_size = smallest_image(model) if dynamic_size else None
    folder.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".onnx.", dir=folder))
    try:
        (partial / "onnx").mkdir()
        write_graph(model, min_size, partial / FLOAT_MODEL)
        report = check_graph(model, min_size, partial / FLOAT_MODEL)
        quantize(partial / FLOAT_MODEL, partial / QUANTIZED_MODEL)
        report["bytes"] = {name: (partial / name).stat().st_size for name in (FLOAT_MODEL, QUANTIZED_MODEL)}
        write_report(report, partial / REPORT)
        if not is_repo:
            model.config.save_pretrained(partial)
            complete_auto_map(partial / "config.json", model)
            image_processor.save_pretrained(partial)
        make_readable(partial / "onnx")
        for path in sorted(partial.iterdir()):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report
