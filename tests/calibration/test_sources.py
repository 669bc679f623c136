"""One command from the Vision Transformers that people have to a folder that loads without this package."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from transformers import (
    BeitConfig,
    BeitModel,
    CLIPConfig,
    CLIPModel,
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2Config,
    Dinov2Model,
    SwinConfig,
    SwinModel,
)

from sk_transformers import create_config
from sk_transformers.calibration.source import check_attention, load_source
from sk_transformers.cli.calibrate import main
from sk_transformers.pretrained import load_base_model
from tests.hub.test_export import load_elsewhere
from tests.support.image_files import write_images
from tests.support.networks import drawn

SIZES = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
MLP = {"intermediate_size": 48}
SWIN = {"image_size": 32, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4}
TEXT = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
OF_TRANSFORMERS = {
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SIZES)),
    "clip": lambda: CLIPModel(CLIPConfig(text_config=TEXT, vision_config={**SIZES, **MLP})),
    "deit": lambda: DeiTForImageClassification(DeiTConfig(**SIZES, **MLP, num_labels=3)),
    "beit": lambda: BeitModel(BeitConfig(**SIZES, **MLP, use_relative_position_bias=True)),
    "swin": lambda: SwinModel(SwinConfig(**SWIN)),
}
OF_TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 3, "num_heads": 2, "num_classes": 3}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return str(write_images(tmp_path_factory.mktemp("data") / "images", ("a", "b"), 16))


def make_source(name, folder, monkeypatch):
    """Return what the command is given for a network of strong random weights."""
    torch.manual_seed(0)
    if name in OF_TRANSFORMERS:
        drawn(OF_TRANSFORMERS[name]()).float().save_pretrained(folder)
        return str(folder)
    network = drawn(VisionTransformer(**OF_TIMM)).float()
    if name == "timm":
        monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: network)
        return "timm:vit_tiny_patch16_224"
    save_file(network.state_dict(), folder.with_suffix(".safetensors"))
    return str(folder.with_suffix(".safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OF_TRANSFORMERS, "timm", "timm-file"])
def test_one_command(name, images, tmp_path, monkeypatch):
    source, out = make_source(name, tmp_path / "source", monkeypatch), tmp_path / "out"
    settings = ["--no-labels", "--layers", "1-2", "--mixer", "static_key+bias", "--fit_steps", "10", "--held_out", "8"]
    main([source, str(out), "--license", "mit", "--dataset", images, *settings])

    record = json.loads((out / "calibration.json").read_text())
    assert [one["layer"] for one in record["replaced"]] == [1, 2]
    assert record["after"]["error"] < 1 and record["before"]["error"] < 1e-6
    config = json.loads((out / "config.json").read_text())
    assert config["token_mixers" if name == "swin" else "token_mixer"] == ["attention", "static_key", "static_key"]
    report, tensors = load_elsewhere(out, tmp_path / "work", "load_features.py")
    assert report["modules"] == ["transformers_modules"]
    here = load_base_model(str(out))[0].eval()
    with torch.no_grad():
        outputs = here(tensors["pixel_values"])
    torch.testing.assert_close(tensors["last_hidden_state"], outputs.last_hidden_state, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_folder_holds_the_error_that_it_states(images, tmp_path, monkeypatch):
    """A BEiT's bias of the logits is another than that of its static keys, and both must arrive."""
    source, out = make_source("beit", tmp_path / "source", monkeypatch), tmp_path / "out"
    arguments = [source, str(out), "--license", "mit", "--dataset", images, "--layers", "0", "--held_out", "8"]
    main([*arguments, "--mixer", "static_key+bias", "--fit_steps", "10"])
    model, processor = load_base_model(str(out))
    untouched, _ = load_base_model(str(tmp_path / "out-work" / "source"))
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(8)]
    pixel_values = processor(noise, return_tensors="pt").pixel_values
    with torch.no_grad():
        found, wanted = (one.eval()(pixel_values).last_hidden_state for one in (model, untouched.float()))
    error = float((found - wanted).square().sum() / (wanted - wanted.mean((0, 1))).square().sum())
    stated = json.loads((out / "calibration.json").read_text())["after"]["error"]
    assert stated / 3 < error < 3 * stated  # other images


@pytest.mark.parametrize("name", ["caformer-nano", "cvt-nano"])
def test_networks_of_stages_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is a sk.*, which has one mixer for all layers of a stage"):
        check_attention(name, create_config(name))


def test_a_trained_network_of_the_zoo_is_taken_by_its_name(tmp_path):
    source = load_source("vit-micro-patch4-32", tmp_path)
    assert (source.name, source.license, source.base_model) == ("vit-micro-patch4-32", "apache-2.0", None)
    assert source.model.num_labels == 10 and not list(tmp_path.iterdir())
