"""Networks in turns on several runtimes, and linear probes of what they make of images."""

import json

import pytest
import torch

from sk_transformers import SKViTModel
from sk_transformers.benchmarks.commands import main
from sk_transformers.benchmarks.probe import accuracy_of_probe
from sk_transformers.benchmarks.runtimes import Timing, from_json, to_table
from sk_transformers.complexity import count_macs
from sk_transformers.hub.export import export
from sk_transformers.image_processing import image_processor_for
from tests.support.image_files import write_images
from tests.support.small_models import small_config

TIMINGS = [
    Timing("vit", 4_600_000_000, "eager", 1, 10.0, 1.0),
    Timing("skvit", 4_300_000_000, "eager", 1, 11.0, 1.1),
    Timing("vit", 4_600_000_000, "eager", 8, 20.0, 1.0),
    Timing("skvit", 4_300_000_000, "eager", 8, 24.0, 1.21),
]


def make_repo(folder, token_mixer):
    model = SKViTModel(small_config("vit", token_mixer=token_mixer)).eval()
    return str(export(model, image_processor_for(model.config.image_size), folder))


def test_a_row_has_every_batch_size():
    *_, first, second = to_table(TIMINGS).splitlines()
    assert first == "| eager | vit | 4.60 | 10.0 | 1.00 | 20.0 | 1.00 |"
    assert second == "| eager | skvit | 4.30 | 11.0 | 1.10 | 24.0 | 1.21 |"


@pytest.mark.slow
def test_networks_and_runtimes_take_turns(tmp_path, capsys):
    repos = [make_repo(tmp_path / mixer, mixer) for mixer in ("attention", "static_map")]
    file = tmp_path / "runtimes.json"
    runtimes = ["eager", "onnx", "int8"]
    main(
        ["runtimes", *repos, "--runtimes", *runtimes, "--batch_sizes", "1", "2", "--rounds", "2", "--output", str(file)]
    )
    figures = json.loads(file.read_text())
    timings = from_json(figures["timings"])
    assert {(t.network, t.runtime, t.batch) for t in timings} == {
        (network, runtime, batch) for network in ("attention", "static_map") for runtime in runtimes for batch in (1, 2)
    }
    assert all(t.ratio == 1 for t in timings if t.network == "attention" and t.runtime != "int8")
    assert {t.macs for t in timings if t.network == "static_map"} == {
        count_macs(small_config("vit", token_mixer="static_map", num_labels=2))
    }
    assert str(tmp_path) not in json.dumps(figures)
    assert to_table(timings) in capsys.readouterr().out
    with pytest.raises(ValueError, match="int8 is compared with onnx"):
        main(["runtimes", *repos, "--runtimes", "int8"])


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
