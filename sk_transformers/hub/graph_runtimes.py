"""The graphs that `export-onnx` writes, in ONNX Runtime and OpenVINO: classifiers on the CPU without torch's kernels.

Either package is imported when it is asked for. Both compute in float32, even where 16 bits are faster, so that
logits are torch's but for rounding; they take the threads that torch has.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, PretrainedConfig
from transformers.image_processing_utils import BaseImageProcessor
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import cached_file

from ..errors import first_line
from ..pretrained import LOADING_ERRORS, source_of

FLOAT_MODEL, QUANTIZED_MODEL = "onnx/model.onnx", "onnx/model_quantized.onnx"

Graph = Callable[[np.ndarray], np.ndarray]  # `pixel_values`, `(batch, channels, height, width)`, to `(batch, labels)`


def load_onnxruntime(file: str | Path) -> Graph:
    """Return a graph in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda pixel_values: np.asarray(session.run(["logits"], {"pixel_values": pixel_values})[0])


def load_openvino(file: str | Path, precision: str = "f32") -> Graph:
    """Return a graph in OpenVINO.

    Args:
        file: the graph.
        precision: that its kernels compute in, `"f32"` or `"bf16"`.
    """
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = one_core(openvino.Core).compile_model(str(file), "CPU", settings).create_infer_request()
    return lambda pixel_values: request.infer({"pixel_values": pixel_values})["logits"]


@cache
def one_core(make: Callable[[], Any]) -> Any:
    """Return the one core of this process, which stays.

    OpenVINO gives the thread that first compiles another stack for signals, and unmaps it in whichever thread drops the
    last graph and core: where that is another one, the next signal (a child that ends) kills the process.
    """
    return make()


RUNTIMES: dict[str, Callable[[str | Path], Graph]] = {"onnxruntime": load_onnxruntime, "openvino": load_openvino}


class GraphClassifier(nn.Module):
    """A graph that is called like the network that it was exported from."""

    def __init__(self, config: PretrainedConfig, graph: Graph) -> None:
        super().__init__()
        self.config, self.graph = config, graph

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """Return `logits`, `(batch, labels)`, of `pixel_values`, `(batch, channels, height, width)`."""
        logits = torch.from_numpy(self.graph(pixel_values.float().numpy(force=True)))
        return ImageClassifierOutput(logits=logits.to(pixel_values.device))


def load_graph_classifier(
    name: str, runtime: str, quantized: bool = False
) -> tuple[GraphClassifier, BaseImageProcessor]:
    """Return an exported classifier in a runtime, and its image processor.

    Args:
        name: a folder or Hub id with `onnx/`, or the name of a trained network of the zoo whose repo has it. No other
            weights need be there.
        runtime: one of `RUNTIMES`.
        quantized: whether to take the graph in 8 bits.

    Raises:
        ImportError: if the runtime is not installed.
        ValueError: if there is no graph, or it cannot be loaded.
    """
    source, graph = source_of(name), QUANTIZED_MODEL if quantized else FLOAT_MODEL
    try:
        config = AutoConfig.from_pretrained(source)
        processor = AutoImageProcessor.from_pretrained(source)
        file = cached_file(source, graph, _raise_exceptions_for_missing_entries=False)
    except LOADING_ERRORS as error:
        raise ValueError(f"model {name} could not be loaded: {first_line(error)}") from error
    if file is None:
        raise ValueError(
            f"--runtime {runtime}: {name} has no {graph}; write it by `sk-transformers export-onnx {name} FOLDER`,"
            " and predict with FOLDER."
        )
    try:
        return GraphClassifier(config, RUNTIMES[runtime](file)), processor
    except ImportError:
        raise
    except Exception as error:  # each runtime has types of its own
        raise ValueError(
            f"--runtime {runtime}: {file} is damaged, or not a graph that it reads: write it anew."
        ) from error
