"""Calibrations of the smallest ViT, from images to a repo folder."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import sk_transformers
from sk_transformers.calibration.options import LayerOptions
from sk_transformers.calibration.run import calibrate
from sk_transformers.cli.calibrate import main
from sk_transformers.hub.export import export
from sk_transformers.image_processing import image_processor_for
from sk_transformers.pretrained import load_base_model, load_classifier
from tests.support.image_files import write_images
from tests.support.small_models import small_config
from tests.support.training import reset_states

SETTINGS = {"fit_steps": 5, "fit_batch_size": 8, "held_out": 8}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return str(write_images(tmp_path_factory.mktemp("data") / "images", ("a", "b", "c"), 12))


def make_source(folder, **overrides):
    """Export a ViT of four layers with strong weights, a classifier of a, b and c."""
    torch.manual_seed(0)
    id2label = dict(enumerate("abc"))
    config = small_config("vit", num_hidden_layers=4, id2label=id2label, label2id={"a": 0, "b": 1, "c": 2}, **overrides)
    model = sk_transformers.SKViTForImageClassification(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return str(export(model.eval(), image_processor_for(16), folder))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source") / "vit")


@pytest.fixture(scope="module")
def by_hand(source, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("by-hand") / "vit-static"
    return calibrate(source, images, folder, layers="1-2", mixer=["static_map"], **SETTINGS)


def test_layers_by_hand_leave_a_repo_folder(by_hand, source):
    model, processor = load_classifier(str(by_hand.folder))
    assert model.config.token_mixers == ["attention", "static_map", "static_map", "attention"]
    assert model.config.attention_biases == [None, "full", "full", None]
    untouched, _ = load_classifier(source)
    pixel_values = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        logits, expected = (network.eval()(pixel_values).logits for network in (model, untouched))
    assert 0 < (logits - expected).square().mean() < expected.var()
    assert processor.size == {"shortest_edge": 16}


def test_the_report_says_what_was_replaced_and_what_it_costs(by_hand):
    record = json.loads((by_hand.folder / "calibration.json").read_text())
    assert [(one["layer"], one["kind"]) for one in record["replaced"]] == [(1, "static_map"), (2, "static_map")]
    assert record["after"]["error"] == record["replaced"][-1]["error"]
    assert record["before"]["error"] < 1e-9 and record["before"]["cosine"] == pytest.approx(1)
    assert record["before"]["multiply_adds"] - record["after"]["multiply_adds"] == sum(
        one["saved_macs"] for one in record["replaced"]
    )
    assert {"top1", "agreement"} <= set(record["after"])
    assert record["images"] == {"name": "images", "calibration": 28, "held_out": 8, "labels": True}
    card = (by_hand.folder / "README.md").read_text()
    assert "static map in layers 1, 2 (counted from 0)" in card and "calibration.png" in card
    assert (by_hand.folder / "calibration.png").is_file()
    assert "layer  1  static_map" in str(by_hand)


def test_the_error_is_that_of_the_network_that_was_written(by_hand, source, images):
    """Computed anew, from files: the held-out images through both networks."""
    from sk_transformers.calibration.images import load_images, loader_of
    from sk_transformers.calibration.options import FitOptions
    from sk_transformers.calibration.source import load_source
    from sk_transformers.data.options import DataOptions

    fit = FitOptions(**SETTINGS)
    found = load_source(source, by_hand.folder / "no")
    data, _ = load_images(DataOptions(images), fit, found)
    pixel_values = torch.cat([b["pixel_values"] for b in loader_of(data.validation, found, DataOptions(images))])
    with torch.no_grad():
        wanted, output = (
            load_base_model(str(name))[0].eval()(pixel_values).last_hidden_state.double()
            for name in (source, by_hand.folder)
        )
    error = (output - wanted).square().sum() / (wanted - wanted.mean((0, 1))).square().sum()
    assert float(error) == pytest.approx(by_hand.after["error"], rel=1e-4)


@pytest.mark.slow
def test_the_folder_loads_without_this_package(by_hand):
    script = (
        "import sys; sys.modules['sk_transformers'] = None\n"
        "import torch; from transformers import AutoModel\n"
        f"model = AutoModel.from_pretrained({str(by_hand.folder)!r}, trust_remote_code=True).eval()\n"
        "print(model(torch.zeros(1, 3, 16, 16)).pooler_output.isfinite().all().item(), type(model).__module__)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] == "True" and run.stdout.split()[1].startswith("transformers_modules")


def test_a_calibration_that_was_stopped_gives_the_same_result(by_hand, source, images, tmp_path):
    from sk_transformers.calibration import study

    real, done = study.save_fitted, []

    def stop_after_the_first(*args):
        real(*args)
        done.append(args)
        raise KeyboardInterrupt

    study.save_fitted = stop_after_the_first
    options = {"layers": "1-2", "mixer": ["static_map"], **SETTINGS}
    try:
        with pytest.raises(KeyboardInterrupt):
            calibrate(source, images, tmp_path / "vit", **options)
    finally:
        study.save_fitted = real
    assert len(done) == 1 and not (tmp_path / "vit").exists()
    resumed = calibrate(source, images, tmp_path / "vit", **options)
    for (name, one), other in zip(resumed.model.state_dict().items(), by_hand.model.state_dict().values()):
        assert torch.equal(one, other), name


@pytest.mark.slow
def test_layers_are_chosen_until_the_error_is_reached(source, images, tmp_path):
    kinds = ["static_map", "conv_static_key+bias"]
    free = calibrate(source, images, tmp_path / "free", max_error=1e9, mixer=kinds, **SETTINGS)
    assert len(free.replaced) == 4 and len(free.candidates) == 4 * 2
    limit = sorted(one["error"] for one in free.candidates if one["kind"] == "static_map")[1] * 1.05
    limited = calibrate(
        source, images, tmp_path / "limited", work_dir=tmp_path / "free-work", max_error=limit, mixer=kinds, **SETTINGS
    )
    assert 1 <= len(limited.replaced) < 4 and limited.after["error"] <= limit
    assert limited.candidates == free.candidates  # not measured again
    least = min(one["error"] for one in free.candidates if one["saved_macs"] > 0)
    with pytest.raises(ValueError, match=f"layer . costs least, an error of {least:.3g}: raise it above that"):
        calibrate(
            source, images, tmp_path / "none", work_dir=tmp_path / "free-work", max_error=1e-9, mixer=kinds, **SETTINGS
        )


@pytest.mark.slow
def test_layers_are_chosen_until_enough_is_saved(source, images, tmp_path):
    options = {"mixer": ["static_map"], **SETTINGS, "fit_steps": 0}
    saved = calibrate(source, images, tmp_path / "one", layers="0", **options)
    target = saved.after["multiply_adds"]
    chosen = calibrate(source, images, tmp_path / "two", target_macs=target, **options)
    assert len(chosen.replaced) == 1 and chosen.after["multiply_adds"] <= target


@pytest.mark.slow
@pytest.mark.parametrize("train", ["new", "all"])
def test_distillation_lowers_the_error_and_trains_what_is_asked_for(source, images, tmp_path, train):
    options = {"layers": "1-2", "mixer": ["static_key+bias"], **SETTINGS, "fit_steps": 0}
    result = calibrate(source, images, tmp_path / "out", distill_steps=20, train=train, **options)
    assert result.after["error"] < result.replaced[-1]["error"]
    assert result.distilled[-1]["step"] == 20
    trained, before = result.model.state_dict(), load_classifier(source)[0].state_dict()
    same = {name for name in before if name in trained and torch.equal(trained[name], before[name])}
    assert ("skvit.layers.0.mlp.fc1.weight" in same) == (train == "new")


def test_images_in_memory_and_a_network_without_a_classifier(tmp_path):
    config = small_config("vit", pooling="mean")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(24)]
    result = sk_transformers.calibrate(
        sk_transformers.SKViTModel(config), images, tmp_path / "out", layers="0", mixer=["static_key"], **SETTINGS
    )
    assert "top1" not in result.after and result.images["labels"] is False
    assert load_base_model(str(result.folder))[0].config.token_mixers == ["static_key", "attention"]


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return f"{stopped.value.code} {capsys.readouterr().err}"


def test_what_does_not_fit_is_refused_in_a_sentence(source, images, tmp_path, capsys):
    out = tmp_path / "out"
    static = make_source(tmp_path / "static", token_mixer="static_key")
    assert "has no attention to replace" in refusal(capsys, static, out, "--dataset", images)
    sparse = make_source(tmp_path / "sparse", attention_normalization="sparsemax")
    assert "attention_normalization='sparsemax'" in refusal(capsys, sparse, out, "--dataset", images)
    assert "there is no layer 9" in refusal(capsys, source, out, "--dataset", images, "--layers", "9")
    assert "pooling" in refusal(capsys, source, out, "--dataset", images, "--layers", "1", "--mixer", "pooling")
    few = write_images(tmp_path / "few", ("a", "b"), 4)
    assert "gives 6 images to calibrate with" in refusal(capsys, source, out, "--dataset", few, "--no-labels")
    assert "class 'x'" in refusal(capsys, source, out, "--dataset", write_images(tmp_path / "x", ("x", "y"), 12))
    arguments = ["--dataset", images, "--max_images", "16", "--mixer", "conv_static_key"]
    wide = make_source(tmp_path / "wide", head_dim=32)
    assert "expected at least 32 images" in refusal(capsys, wide, out, *arguments)
    bad = write_images(tmp_path / "bad", ("a", "b"), 12)
    (bad / "a" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "unreadable" in refusal(capsys, source, out, "--dataset", bad, "--layers", "1")
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "file").touch()
    assert "exists already" in refusal(capsys, source, occupied, "--dataset", images)
    assert not out.exists()


def test_mirrored_images_calibrate_too(source):
    from accelerate import Accelerator

    from sk_transformers.calibration.layerwise import LayeredNetwork

    network = LayeredNetwork(load_classifier(source)[0], Accelerator())
    pixel_values, labels = torch.randn(3, 3, 16, 16), torch.tensor([0, 1, 2])
    batch = {"pixel_values": pixel_values, "labels": labels}
    mirrored = {"pixel_values": pixel_values.flip(3), "labels": labels}
    tokens, of_tokens, sums = network.read([batch], 6, [1], mirrored=True)
    expected, _, expected_sums = network.read([batch, mirrored], 6, [1])
    assert torch.equal(tokens, expected) and of_tokens.tolist() == [0, 1, 2, 0, 1, 2]
    assert sums[1].images == 6 and torch.equal(sums[1].weights, expected_sums[1].weights)


def test_a_work_folder_is_of_one_calibration(source, images, tmp_path):
    options = {"layers": "1", "mixer": ["static_map"], "work_dir": tmp_path / "work", **SETTINGS}
    calibrate(source, images, tmp_path / "one", **options)
    with pytest.raises(ValueError, match="fitted with another options: choose another --work_dir"):
        calibrate(source, images, tmp_path / "two", **{**options, "fit_steps": 6})


def test_layers_are_fitted_in_bfloat16_and_measured_in_float32(source, images, tmp_path):
    options = {"layers": "1", "mixer": ["static_key+bias"], **SETTINGS}
    precise = calibrate(source, images, tmp_path / "no", **options)
    reset_states()
    half = calibrate(source, images, tmp_path / "bf16", mixed_precision="bf16", **options)
    reset_states()
    keys = [one.model.base_model.get_parameter("layers.1.mixer.key") for one in (precise, half)]
    assert keys[1].dtype == torch.float32 and not torch.equal(*keys)
    assert half.after["error"] == pytest.approx(precise.after["error"], rel=0.02)


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="leave it out"):
        LayerOptions(layers="1", max_error=0.1)
    with pytest.raises(ValueError, match="takes one --mixer"):
        LayerOptions(layers="1", mixer=["static_map", "static_key"])
    with pytest.raises(ValueError, match="'pooling' cannot take the place of attention"):
        calibrate(sk_transformers.SKViTModel(small_config("vit")), [], "out", layers="0", mixer=["pooling"])
