"""Networks in turns in several runtimes, and linear probes of what they make of images."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageClassification, ViTImageProcessor

from sk_transformers.benchmarks.commands import RUNTIME_NAMES, main
from sk_transformers.benchmarks.doors import DOORS, Network, load_aot_inductor, write_aot_inductor, write_module
from sk_transformers.benchmarks.probe import accuracy_of_probe
from sk_transformers.benchmarks.resident import resident_memory
from sk_transformers.benchmarks.runtimes import Timing, from_json, load_network, to_summary, to_table, to_text
from sk_transformers.complexity import count_macs
from sk_transformers.data.loaders import read_image
from sk_transformers.hub.export import export
from tests.support.image_files import load_images, write_images
from tests.support.small_models import small_config, small_model

PROCESSOR = ViTImageProcessor(size={"height": 16, "width": 16})

TIMINGS = [
    Timing("vit", 4_600_000_000, "onnx", 1, 100.0, 120.0, 1.0, 1.0, 2**20, 0.8125),
    Timing("skvit", 4_300_000_000, "onnx-int8", 1, 50.0, 71.26, 2.0, 1.7, 2**19),
    Timing("vit", 4_600_000_000, "onnx", 8, 400.0, 440.0, 1.0, 1.0, 2**20, 0.8125),
    Timing("skvit", 4_300_000_000, "onnx-int8", 8, 333.3, 350.0, 1.2, 1.8, 2**19),
]


def make_repo(folder, token_mixer, **settings):
    model = small_model("vit", token_mixer=token_mixer, **settings)
    return str(export(model, PROCESSOR, folder))


def test_the_command_offers_every_door():
    assert tuple(DOORS) == RUNTIME_NAMES


def test_a_row_has_every_batch_size():
    head, _, first, second = to_table(TIMINGS).splitlines()
    assert head.startswith("| runtime | network | batch 1: ms | 99% | ratio | batch 8: images/s | ratio | of float32 |")
    assert first == "| ONNX Runtime | vit | 100 | 120 | 1.00 | 20 | 1.00 |  | 1.0 | 81.25 |"
    assert second == "| ONNX Runtime, 8 bits | skvit | 50 | 71.3 | 2.00 | 24 | 1.20 | 1.80 | 0.5 |  |"


def test_a_summary_has_ratios_of_the_largest_batch_in_float32():
    timings = [vars(replace(timing, runtime="openvino" if timing.network == "skvit" else "onnx")) for timing in TIMINGS]
    *_, row = to_summary({"runs": [{"timings": timings}]}).splitlines()
    assert row == "| skvit, batch 8 | vit |  | 1.20x |"


@pytest.mark.slow
def test_networks_and_runtimes_take_turns(tmp_path, capsys):
    pytest.importorskip("openvino")
    repos = [make_repo(tmp_path / mixer, mixer, num_hidden_layers=1) for mixer in ("attention", "static_map")]
    runtimes, file = ["eager", "eager-bfloat16", "onnx", "openvino"], tmp_path / "runtimes.json"
    sizes = ["--batch_sizes", "1", "2", "--rounds", "2", "--latency_rounds", "3"]
    main(["runtimes", *repos, "--runtimes", *runtimes, *sizes, "--output", str(file)])
    figures = json.loads(file.read_text())
    timings = from_json(figures["runs"][0])
    assert {(t.network, t.runtime, t.batch) for t in timings} == {
        (network, runtime, batch) for network in ("attention", "static_map") for runtime in runtimes for batch in (1, 2)
    }
    assert all(t.ratio == 1 for t in timings if t.network == "attention")
    assert all(t.gain == 1 for t in timings if "bfloat16" not in t.runtime)
    assert all(0 < t.milliseconds <= t.milliseconds_99 for t in timings)
    weights = {t.runtime: t.bytes for t in timings if t.network == "static_map"}
    assert weights["eager"] > weights["eager-bfloat16"] and weights["onnx"] == weights["openvino"] > 0
    assert {t.macs for t in timings if t.network == "static_map"} == {
        count_macs(small_config("vit", token_mixer="static_map", num_hidden_layers=1))
    }
    assert str(tmp_path) not in json.dumps(figures)
    assert to_text(figures) in capsys.readouterr().out


def test_accuracies_and_runs_in_one_file(tmp_path):
    labels = {0: "a", 1: "b", 2: "c"}
    repo = make_repo(tmp_path / "repo", "static_key", id2label=labels, label2id={name: i for i, name in labels.items()})
    images, file = str(write_images(tmp_path / "images", ("a", "b", "c"), 4)), str(tmp_path / "runtimes.json")
    command = ["runtimes", repo, "--runtimes", "eager", "--batch_sizes", "2", "--rounds", "1", "--output", file]
    main([*command, "--dataset", images])
    main([*command, "--append", "--cpu_time"])
    first, second = json.loads((tmp_path / "runtimes.json").read_text())["runs"]
    data, model = load_images(images).validation, AutoModelForImageClassification.from_pretrained(repo).eval()
    pixel_values = PROCESSOR([read_image(image) for image in data["image"]], return_tensors="pt").pixel_values
    right = model(pixel_values).logits.argmax(dim=1) == torch.tensor(data["label"])
    assert first["timings"][0]["top1"] == pytest.approx(right.double().mean().item()) and not first["cpu_time"]
    assert second["timings"][0]["top1"] is None and second["cpu_time"]
    with pytest.raises(ValueError, match="vit-nano-patch4-32 is not trained: name folders"):
        main(["runtimes", "vit-nano-patch4-32", *command[2:], "--dataset", images])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from /proc")
@pytest.mark.slow
def test_memory_is_that_of_weights_and_activations(tmp_path):
    weights, activations = 2**26, 2**27  # bytes: of 4096 x 4096 numbers, and of what 8192 rows of them become
    module = torch.nn.Linear(4096, 4096, bias=False)
    file = write_module(Network("linear", module, (1, 1), 0, tmp_path))
    memory = resident_memory("eager", file, (8192, 4096))
    assert weights + activations < memory < 1.5 * (weights + 2 * activations)


def test_a_network_of_timm_is_a_baseline(tmp_path):
    network = load_network("timm:vit_tiny_patch16_224", tmp_path)
    assert network.name == "timm vit_tiny_patch16_224" and network.image_size == (224, 224)
    assert network.macs == pytest.approx(1.26e9, rel=0.02)  # 1.08 G and 2 x 12 x 197 x 197 x 192 of attention
    assert network.model is None


@pytest.mark.slow
def test_aot_inductor_computes_the_module(tmp_path):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
    file = write_aot_inductor(Network("linear", module, (2, 2), 36, tmp_path))
    graph = load_aot_inductor(file)
    for batch in (1, 3):
        images = torch.randn(batch, 3, 2, 2)
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(graph(images.numpy())), module(images))
    assert file.stat().st_size > 0


def test_a_probe_finds_classes_that_a_line_divides():
    torch.manual_seed(0)
    labels = torch.arange(300) % 3
    features = torch.nn.functional.one_hot(labels, 3) * 4.0 @ torch.randn(3, 8) + 0.1 * torch.randn(300, 8)
    noise = torch.randn(300, 8)
    assert accuracy_of_probe(features[:200], labels[:200], features[200:], labels[200:]) == 1
    assert accuracy_of_probe(noise[:200], labels[:200], noise[200:], labels[200:]) < 0.6


@pytest.mark.slow
def test_probes_are_of_the_same_images(tmp_path, capsys):
    repos = [make_repo(tmp_path / mixer, mixer) for mixer in ("attention", "static_key")]
    images = str(write_images(tmp_path / "images", ("a", "b", "c"), 8))
    file = tmp_path / "probe.json"
    main(["probe", *repos, repos[0], "--dataset", images, "--train_images", "12", "--output", str(file)])
    first, second, again = json.loads(file.read_text())["probes"]
    assert (first["network"], second["network"]) == ("attention", "static_key")
    assert first == again and first["train_images"] == 12
    assert 0 <= second["top1"] <= 1
    assert "| static_key | " in capsys.readouterr().out
