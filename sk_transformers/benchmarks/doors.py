"""The runtimes that a network is deployed in: each writes it to a file, and loads that as a function of images.

A network of this package is exported as `export-onnx` does, folded; any other as its exporter makes it. Eager, compiled
and AOTInductor take the network as it is.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..hub.graph_runtimes import Graph, load_onnxruntime, load_openvino
from ..hub.onnx_export import export_module, quantize, write_graph


@dataclass(frozen=True, eq=False)
class Network:
    """A network to be deployed.

    Args:
        name: in the tables.
        module: from `pixel_values` to logits.
        image_size: `(height, width)`.
        macs: of one image.
        folder: where its files are written.
        model: the network itself where it is of this package.
        processor: its image processor, where it is trained.
    """

    name: str
    module: nn.Module
    image_size: tuple[int, int]
    macs: int
    folder: Path
    model: PreTrainedModel | None = None
    processor: BaseImageProcessor | None = None


class Logits(nn.Module):
    """A network whose output is its logits."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.network(pixel_values).logits


class Door(NamedTuple):
    """A runtime.

    Args:
        title: in the tables.
        float32: the name of the same in float32.
        write: from a network to the file that it is loaded from.
        load: from the file to a function of images.
        package: that loads it.
    """

    title: str
    float32: str
    write: Callable[[Network], Path]
    load: Callable[[Path], Graph]
    package: str = "torch"


def write_module(network: Network, dtype: torch.dtype = torch.float32) -> Path:
    """Write a network's module as it is, its weights in `dtype`."""
    file = network.folder / f"module_{str(dtype).removeprefix('torch.')}.pt"
    if not file.is_file():
        torch.save(copy.deepcopy(network.module).to(dtype), file)
    return file


def load_module(file: Path, compiled: bool = False) -> Graph:
    """Return a network in torch itself, from what `write_module` has just written."""
    module = torch.load(file, weights_only=False)
    if compiled:  # counted for all networks of a class together, and beyond it they would run in eager mode
        torch._dynamo.config.recompile_limit = 64
    function = torch.compile(module, dynamic=False) if compiled else module
    dtype = next(module.parameters()).dtype

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return function(torch.from_numpy(images).to(dtype)).float().numpy()

    return run


def write_aot_inductor(network: Network) -> Path:
    """Export a network by `torch.export`, and compile it by AOTInductor."""
    import torch._inductor

    file = network.folder / "model.pt2"
    example = torch.zeros(2, 3, *network.image_size)
    with torch.no_grad():
        program = torch.export.export(network.module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch._inductor.aoti_compile_and_package(program, package_path=str(file))
    return file


def load_aot_inductor(file: Path) -> Graph:
    """Return what `write_aot_inductor` has compiled."""
    import torch._inductor

    compiled: Any = torch._inductor.aoti_load_package(str(file))

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return compiled(torch.from_numpy(images)).numpy()

    return run


def write_onnx(network: Network) -> Path:
    """Export a network for ONNX, folded where it is of this package."""
    file = network.folder / "model.onnx"
    if file.is_file():
        return file
    if network.model is not None:
        write_graph(network.model, None, file)
    else:
        example = torch.zeros(2, 3, *network.image_size)
        export_module(network.module, example, {0: torch.export.Dim("batch")}, file)
    return file


def write_onnx_in_8_bits(network: Network) -> Path:
    """Export a network for ONNX with matrix products in 8 bits."""
    file = network.folder / "model_quantized.onnx"
    if not file.is_file():
        quantize(write_onnx(network), file)
    return file


def in_torch(title: str, float32: str, dtype: torch.dtype = torch.float32, compiled: bool = False) -> Door:
    return Door(title, float32, partial(write_module, dtype=dtype), partial(load_module, compiled=compiled))


def in_onnxruntime(title: str, write: Callable[[Network], Path]) -> Door:
    return Door(title, "onnx", write, load_onnxruntime, "onnxruntime")


def in_openvino(title: str, write: Callable[[Network], Path], precision: str = "f32") -> Door:
    return Door(title, "openvino", write, partial(load_openvino, precision=precision), "openvino")


DOORS = {
    "eager": in_torch("eager", "eager"),
    "eager-bfloat16": in_torch("eager, bfloat16", "eager", torch.bfloat16),
    "compiled": in_torch("`torch.compile`", "compiled", compiled=True),
    "aot": Door("AOTInductor", "aot", write_aot_inductor, load_aot_inductor),
    "onnx": in_onnxruntime("ONNX Runtime", write_onnx),
    "onnx-int8": in_onnxruntime("ONNX Runtime, 8 bits", write_onnx_in_8_bits),
    "openvino": in_openvino("OpenVINO", write_onnx),
    "openvino-int8": in_openvino("OpenVINO, 8 bits", write_onnx_in_8_bits),
    "openvino-bfloat16": in_openvino("OpenVINO, bfloat16", write_onnx, "bf16"),
}
