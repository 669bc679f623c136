"""The runtimes that a network is deployed in, each as a function of a module that gives a function of images.

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


class Door(NamedTuple):
    """A runtime.

    Args:
        title: in the tables.
        float32: the name of the same in float32.
        open: from a network to a function of images, and the bytes of its weights or file.
    """

    title: str
    float32: str
    open: Callable[[Network], tuple[Graph, int]]


def open_torch(network: Network, dtype: torch.dtype = torch.float32, compiled: bool = False) -> tuple[Graph, int]:
    """Return a network in torch itself."""
    module = copy.deepcopy(network.module).to(dtype)
    size = sum(parameter.nbytes for parameter in module.parameters())
    function = torch.compile(module, dynamic=False) if compiled else module

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return function(torch.from_numpy(images).to(dtype)).float().numpy()

    return run, size


def open_aot_inductor(network: Network) -> tuple[Graph, int]:
    """Return a network that `torch.export` has exported and AOTInductor compiled."""
    import torch._inductor

    file = str(network.folder / "model.pt2")
    example = torch.zeros(2, 3, *network.image_size)
    with torch.no_grad():
        program = torch.export.export(network.module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch._inductor.aoti_compile_and_package(program, package_path=file)
    compiled: Any = torch._inductor.aoti_load_package(file)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return compiled(torch.from_numpy(images)).numpy()

    return run, Path(file).stat().st_size


def open_graph(network: Network, load: Callable[[Path], Graph], in_8_bits: bool = False) -> tuple[Graph, int]:
    """Return a network by its graph for ONNX."""
    file, quantized = network.folder / "model.onnx", network.folder / "model_quantized.onnx"
    if not file.is_file():
        if network.model is not None:
            write_graph(network.model, None, file)
        else:
            example = torch.zeros(2, 3, *network.image_size)
            export_module(network.module, example, {0: torch.export.Dim("batch")}, file)
    if in_8_bits and not quantized.is_file():
        quantize(file, quantized)
    chosen = quantized if in_8_bits else file
    return load(chosen), chosen.stat().st_size


DOORS = {
    "eager": Door("eager", "eager", open_torch),
    "eager-bfloat16": Door("eager, bfloat16", "eager", partial(open_torch, dtype=torch.bfloat16)),
    "compiled": Door("`torch.compile`", "compiled", partial(open_torch, compiled=True)),
    "aot": Door("AOTInductor", "aot", open_aot_inductor),
    "onnx": Door("ONNX Runtime", "onnx", partial(open_graph, load=load_onnxruntime)),
    "onnx-int8": Door("ONNX Runtime, 8 bits", "onnx", partial(open_graph, load=load_onnxruntime, in_8_bits=True)),
    "openvino": Door("OpenVINO", "openvino", partial(open_graph, load=load_openvino)),
    "openvino-int8": Door("OpenVINO, 8 bits", "openvino", partial(open_graph, load=load_openvino, in_8_bits=True)),
    "openvino-bfloat16": Door(
        "OpenVINO, bfloat16", "openvino", partial(open_graph, load=partial(load_openvino, precision="bf16"))
    ),
}
