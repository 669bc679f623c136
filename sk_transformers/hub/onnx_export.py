"""A classifier as ONNX, in the folder layout that transformers.js and Optimum read.

`onnx/model.onnx` has the weights in float32, `onnx/model_quantized.onnx` those of its matrix products in 8 bits.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import PretrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..files import check_free, whole_folder, write_json
from ..models.configuration_checks import size_pair
from .export import check_exportable, complete_auto_map, make_readable
from .folding import fold
from .graph_runtimes import FLOAT_MODEL, QUANTIZED_MODEL, load_onnxruntime

REPORT = "onnx/export.json"
TOLERANCE = 1e-4  # of logits, beside torch's
OPSET = 20
KEPT_FOR_A_GRID = ("static_key", "conv_static_key", "static_map", "random")  # mixers that are resized with the image
OTHER_THAN_WEIGHTS = ("_name_or_path", "architectures", "auto_map", "dtype", "transformers_version")


def export_onnx(
    model: PreTrainedModel,
    image_processor: BaseImageProcessor,
    folder: str | Path,
    dynamic_size: bool = False,
    measure: Callable[[Path, Path], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write a classifier as ONNX, in float32 and quantized, and check it against torch.

    Args:
        model: one of this package's classifiers, in float32. It is set to evaluation mode.
        image_processor: the image processor of the model's repo.
        folder: a repo folder of this model, which gets the folder `onnx/`; or a new one, which gets `config.json` and
            `preprocessor_config.json` besides.
        dynamic_size: whether the graph takes images of all sizes from `smallest_image(model.config)` on, and not only
            those that the image processor makes. The batch is always dynamic.
        measure: makes more of the report from the float and the quantized file. If it fails, nothing is written.

    Returns:
        What `onnx/export.json` holds: the smallest image, the largest difference of logits to torch's on random images,
        and the files' sizes in bytes.

    Raises:
        TypeError: if the model is not one of this package's classifiers.
        ValueError: if it is not in float32, or cannot take images of all sizes, or ONNX Runtime's logits are not
            torch's to 1e-4.
        FileExistsError: if the folder holds another model, or an export already.
    """
    check_exportable(model)
    if not hasattr(model, "classifier"):
        raise TypeError(f"export_onnx takes a classifier, not {type(model).__name__}.")
    if model.dtype != torch.float32:
        raise ValueError(f"The model is in {model.dtype}, expected torch.float32: use model.float().")
    folder = Path(folder)
    is_repo = check_target(folder, model)
    min_size = smallest_image(model.config) if dynamic_size else None
    if is_repo:
        with whole_folder(folder / "onnx") as partial:
            return write_onnx_files(model.eval(), min_size, partial, measure)
    with whole_folder(folder) as partial:
        (partial / "onnx").mkdir()
        report = write_onnx_files(model.eval(), min_size, partial / "onnx", measure)
        model.config.save_pretrained(partial)
        complete_auto_map(partial / "config.json", model)
        image_processor.save_pretrained(partial)
        make_readable(partial)
    return report


def check_target(folder: Path, model: PreTrainedModel) -> bool:
    """Return whether `folder` is a repo folder of this model, or else free.

    Raises:
        FileExistsError: if it holds something else, or an export.
    """
    if not (folder / "config.json").is_file():
        check_free(folder)
        return False
    if (folder / "onnx").exists():
        raise FileExistsError(f"{folder / 'onnx'} exists already: nothing was written. Remove it first.")
    if not _describes(json.loads((folder / "config.json").read_text()), model.config):
        raise FileExistsError(f"{folder} holds another model: nothing was written. Choose another folder.")
    return True


def _describes(stored: dict[str, Any], config: PretrainedConfig) -> bool:
    """Return whether a `config.json` is this configuration; fields that are newer than the file have their defaults."""
    if stored.get("model_type") != config.model_type:
        return False
    try:
        theirs = type(config).from_dict(stored).to_dict()
    except (TypeError, ValueError):  # values that this network does not have
        return False
    theirs, ours = json.loads(json.dumps(theirs)), json.loads(json.dumps(config.to_dict()))  # tuples as lists
    return all(theirs.get(key) == ours.get(key) for key in {*theirs, *ours} - {*OTHER_THAN_WEIGHTS})


def smallest_image(config: PretrainedConfig) -> tuple[int, int]:
    """Return `(height, width)` of the smallest image that a graph for images of all sizes takes.

    What belongs to a grid, positions and static keys, can only grow in the graph: torch's antialiased filter, which
    shrinks it, has other coefficients than the one that enlarges it, and a graph holds one of them.

    Raises:
        ValueError: if the network cuts its maps into windows, whose number a graph holds too, or has relative biases.
    """
    if config.model_type == "skswin":
        raise ValueError(
            "A Swin cuts its maps into a number of windows that an ONNX graph cannot vary: export images of one size."
        )
    if "relative" in config.attention_biases:
        raise ValueError(
            "attention_bias='relative' makes a bias for each grid from a table, which an ONNX graph does for one grid:"
            " export images of one size."
        )
    if not config.has_stages:
        return size_pair("image_size", config.image_size)
    mixers = {
        mixer
        for mixer, bias in zip(config.token_mixers, config.attention_biases)
        if mixer in KEPT_FOR_A_GRID or bias is not None
    }
    if config.static_key_resolution == "window" and mixers - {"random", "attention", "conv_key"}:
        raise ValueError(
            "static_key_resolution='window' cuts a map into a number of windows that an ONNX graph cannot vary:"
            " export images of one size, or set 'interpolate'."
        )
    return size_pair("image_size", config.image_size) if mixers else (config.min_image_size, config.min_image_size)


class PixelsToLogits(torch.nn.Module):
    """A classifier with one input and one output and, where images of all sizes go in, a check of their size."""

    def __init__(self, model: PreTrainedModel, min_size: tuple[int, int] | None):
        super().__init__()
        self.model = model
        self.min_size = min_size
        self.options = {"interpolate_pos_encoding": True} if min_size and not model.config.has_stages else {}

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if self.min_size is not None:
            # A graph cannot raise, but runtimes refuse to read a pixel that a smaller image does not have.
            height, width = self.min_size
            last = pixel_values.select(2, height - 1).select(2, width - 1)
            pixel_values = pixel_values + 0 * last[:, :, None, None]
        return self.model(pixel_values, **self.options).logits


def write_onnx_files(
    model: PreTrainedModel,
    min_size: tuple[int, int] | None,
    folder: Path,
    measure: Callable[[Path, Path], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write both graphs and their report into the folder `onnx/`, and return the report."""
    float_file, quantized_file = folder / Path(FLOAT_MODEL).name, folder / Path(QUANTIZED_MODEL).name
    write_graph(model, min_size, float_file)
    difference = largest_difference(model, min_size, float_file)
    if difference > TOLERANCE:
        raise ValueError(f"ONNX Runtime's logits are {difference:.1e} off torch's, expected {TOLERANCE:.0e} at most.")
    quantize(float_file, quantized_file)
    report = {
        "opset": OPSET,
        "image_size": model.config.image_size,
        "smallest_image": min_size,
        "largest_difference": difference,
        "bytes": {FLOAT_MODEL: float_file.stat().st_size, QUANTIZED_MODEL: quantized_file.stat().st_size},
    }
    if measure is not None:
        report |= measure(float_file, quantized_file)
    write_json(report, folder / Path(REPORT).name)
    make_readable(folder)
    return report


def write_graph(model: PreTrainedModel, min_size: tuple[int, int] | None, file: Path) -> None:
    """Write the network as one ONNX file, the weights inside."""
    height, width = size_pair("image_size", model.config.image_size)
    dynamic: dict[int, Any] = {0: torch.export.Dim("batch")}
    if min_size is None:
        model = fold(model)
    else:
        # The trained size would make a graph that does not resize.
        height, width = 3 * height, 4 * width
        dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    example = torch.zeros(2, model.config.num_channels, height, width)
    export_module(PixelsToLogits(model, min_size), example, dynamic, file)


def export_module(module: torch.nn.Module, pixel_values: torch.Tensor, dynamic: dict[int, Any], file: Path) -> None:
    """Write a module from pixels to logits as one ONNX file.

    Args:
        module: of one argument.
        pixel_values: an example of it.
        dynamic: its axes that may have another size, as `torch.export` takes them.
        file: where to write it.
    """
    with quiet():
        torch.onnx.export(
            module,
            (pixel_values,),
            file,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_shapes=(dynamic,),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    remove_traces(file)


def quantize(file: Path, quantized_file: Path) -> None:
    """Write a graph whose matrix products are in 8 bits, with the scale of what is computed taken from each batch."""
    with quiet():
        quantize_dynamic(
            file,
            quantized_file,
            op_types_to_quantize=["MatMul", "Gemm"],  # browsers have no kernel for convolutions in 8 bits
            weight_type=QuantType.QInt8,
        )


def remove_traces(file: Path) -> None:
    """Take out of an ONNX file where each node was written: the exporter's paths and source lines."""
    network = onnx.load(file)
    graph = network.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(network, file)


@torch.inference_mode()
def largest_difference(model: PreTrainedModel, min_size: tuple[int, int] | None, file: Path) -> float:
    """Return the largest difference between logits of ONNX Runtime and torch on random images of some sizes."""
    network = PixelsToLogits(model, None)
    network.options = PixelsToLogits(model, min_size).options
    height, width = size_pair("image_size", model.config.image_size)
    patch = size_pair("patch_size", getattr(model.config, "patch_size", None) or model.config.min_image_size)
    sizes = [(1, height, width), (3, height, width)]
    sizes += [] if min_size is None else [(2, *min_size), (1, height + 2 * patch[0], width + patch[1])]
    generator = torch.Generator().manual_seed(0)
    run = load_onnxruntime(file)
    differences = []
    for batch, *size in sizes:
        pixel_values = torch.randn(batch, model.config.num_channels, *size, generator=generator)
        differences.append(np.abs(run(pixel_values.numpy()) - network(pixel_values).numpy()).max())
    return float(max(differences))


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out the libraries' advice on their own inner working."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
