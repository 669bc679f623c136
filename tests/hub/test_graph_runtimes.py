"""An exported graph gives torch's logits in every runtime, and its faults are said in one sentence."""

import builtins
import csv
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessor

from sk_transformers.cli.predict import main
from sk_transformers.evaluation.options import PredictionOptions
from sk_transformers.hub import export
from sk_transformers.hub.graph_runtimes import RUNTIMES, load_graph_classifier
from sk_transformers.hub.onnx_export import export_onnx

from ..support.small_models import small_model

PROCESSOR = ViTImageProcessor(size={"height": 64, "width": 64})
MIXERS = ["separable_conv", "conv_static_key", "static_key", "attention"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A classifier with every mixer that is folded, and its folder."""
    torch.manual_seed(0)
    model = small_model("skaformer", token_mixers=MIXERS, depths=[1, 1, 1, 1], head_layer_norm_eps=0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    repo = export(model, PROCESSOR, tmp_path_factory.mktemp("repo") / "repo")
    export_onnx(model, PROCESSOR, repo)
    return model, repo


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_logits_are_torchs(exported, runtime):
    pytest.importorskip(runtime)
    model, repo = exported
    network, processor = load_graph_classifier(str(repo), runtime)
    quantized, _ = load_graph_classifier(str(repo), runtime, quantized=True)
    assert processor.size == PROCESSOR.size
    for batch in (1, 2, 5):
        pixel_values = torch.randn(batch, 3, 64, 64)
        with torch.no_grad():
            expected = model(pixel_values).logits
        logits = network(pixel_values).logits
        network(torch.zeros_like(pixel_values))  # which must not change what was returned
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert 1e-5 < (quantized(pixel_values).logits - expected).abs().max() < 0.2 * expected.std()


SCRIPT = """
import signal, subprocess, sys, threading
from sk_transformers.hub.graph_runtimes import load_openvino

graphs = [load_openvino(sys.argv[1])]
thread = threading.Thread(target=graphs.clear)
thread.start()
thread.join()
signal.signal(signal.SIGCHLD, lambda *_: print("a child has ended", flush=True))
subprocess.run([sys.executable, "-c", ""])
"""


@pytest.mark.slow
def test_signals_arrive_after_another_thread_has_dropped_a_graph(exported):
    pytest.importorskip("openvino")
    graph = exported[1] / "onnx" / "model.onnx"
    run = subprocess.run([sys.executable, "-X", "faulthandler", "-c", SCRIPT, graph], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "a child has ended\n"), run.stderr


@pytest.mark.slow
def test_what_no_image_changes_is_a_constant(exported):
    _, repo = exported
    graph = onnx.load(repo / "onnx" / "model.onnx").graph
    shapes = [tuple(tensor.dims) for tensor in graph.initializer]
    assert (1, 2, 9 * 8 + 1, 8 * 8) in shapes and (1, 4, 8, 4 * 4) in shapes  # keys, transposed, the first with a bias
    operators = [node.op_type for node in graph.node]
    assert operators.count("Softmax") == 3 and not {"Einsum", "Gather", "Sqrt"} & {*operators}
    assert operators.count("Mul") == 4  # by the residual scales


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_table_is_the_same_by_every_runtime(exported, runtime, tmp_path):
    pytest.importorskip(runtime)
    _, repo = exported
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    tables = []
    for options in ([], ["--runtime", runtime]):
        output = tmp_path / f"{len(tables)}.csv"
        main([str(repo), str(images), "-o", str(output), "--batch_size", "2", *options])
        with output.open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    assert len(tables[0]) == 3
    for row, other in zip(*tables):
        assert [row[f"label_{rank}"] for rank in (1, 2, 3)] == [other[f"label_{rank}"] for rank in (1, 2, 3)]
        assert float(row["score_1"]) == pytest.approx(float(other["score_1"]), abs=1e-4)


def test_faults_are_said_in_a_sentence(tmp_path, monkeypatch):
    repo = export(small_model("vit"), PROCESSOR, tmp_path / "repo")
    image, output = str(tmp_path / "a.png"), str(tmp_path / "t.csv")
    Image.new("RGB", (20, 20)).save(image)

    def said_of(*options):
        with pytest.raises(SystemExit) as error:
            main([str(repo), image, "-o", output, *options])
        assert "\n" not in str(error.value)
        return str(error.value)

    missing = said_of("--runtime", "onnxruntime", "--quantized")
    assert "repo has no onnx/model_quantized.onnx; write it by `sk-transformers export-onnx" in missing
    (repo / "onnx").mkdir()
    (repo / "onnx" / "model.onnx").write_bytes(bytes(100))
    assert "is damaged, or not a graph that it reads" in said_of("--runtime", "onnxruntime")
    real_import = builtins.__import__

    def without_openvino(name, *rest, **named):
        if name == "openvino":
            raise ModuleNotFoundError("No module named 'openvino'", name="openvino")
        return real_import(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_openvino)
    assert "No module named 'openvino'" in said_of("--runtime", "openvino")
    assert {path.name for path in tmp_path.iterdir()} == {"repo", "a.png"}


@pytest.mark.parametrize("given", [{"embeddings": True}, {"masks": "masks"}, {"mixed_precision": "bf16"}])
def test_what_a_graph_does_not_do_is_refused(given):
    with pytest.raises(ValueError, match=f"--{next(iter(given))} goes with --runtime torch"):
        PredictionOptions(runtime="onnxruntime", **given)
    with pytest.raises(ValueError, match="--quantized is a graph's"):
        PredictionOptions(quantized=True)
