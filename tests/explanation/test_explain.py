"""`sk-transformers explain`: its numbers, its pictures, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForSemanticSegmentation, SegformerImageProcessor

from sk_transformers.cli.explain import main
from sk_transformers.demo.mechanism import load_network
from sk_transformers.evaluation.grad_cam import grad_cam
from sk_transformers.explanation.run import look_into
from sk_transformers.hub.export import export
from sk_transformers.image_processing import image_processor_for
from sk_transformers.models.modeling_skvit import SKViTModel

from ..support.small_models import small_config, small_model


@pytest.fixture
def photos(tmp_path):
    files = []
    for number, color in enumerate(("red", "navy")):
        image = Image.effect_noise((90, 60), 80).convert("RGB")
        image.paste(color, (10, 10, 40, 40))
        files.append(str(tmp_path / f"photo{number}.png"))
        image.save(files[-1])
    return files


def repo(folder, model):
    return str(export(model, image_processor_for(model.config.image_size), folder))


def test_a_vit_is_explained(tmp_path, photos):
    name = "bias-vit"  # a static map, attention, SKA and CSKA, with biases
    model = repo(tmp_path / name, small_model(name))
    main([model, *photos, "-o", str(tmp_path / "out"), "--rollout_fusion", "max", "--rollout_discard", "0.5"])
    written = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert written == [
        "entropy.png", "explanation.json", "image-01-photo0.png", "image-02-photo1.png", "interactions.png",
        "parameters.png",
    ]  # fmt: skip
    assert all(Image.open(tmp_path / "out" / file).size[0] > 200 for file in written if file.endswith(".png"))
    found = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert found["model"] == name and len(found["images"]) == 2
    assert {"file", "label", "probability"} == set(found["images"][0])
    layers = found["layers"]
    assert [layer["layer"] for layer in layers] == ["layer 1", "layer 2", "layer 3", "layer 4"]
    assert layers[0]["spread_over_images"] == pytest.approx(0, abs=1e-5)  # a static map is no image's
    assert all(layer["spread_over_images"] > 1e-4 for layer in layers[1:])
    for layer in layers:
        assert all(0 < entropy <= layer["largest_entropy"] + 1e-5 for entropy in layer["entropy_of_heads"])


def test_a_hybrid_has_grad_cam_and_no_rollout(tmp_path, photos):
    network = load_network(repo(tmp_path / "former", small_model("skaformer")))
    found = look_into(network, [Image.open(file) for file in photos])
    assert found.rollout is None  # its stages have other tokens
    assert [layer.name for layer in found.layers] == [
        "stage 2, layer 1", "stage 2, layer 2", "stage 3, layer 1", "stage 4, layer 1",
    ]  # fmt: skip
    assert [tuple(maps.shape) for maps in found.class_maps] == [(2, 16, 16)] * 2 + [(2, 8, 8), (2, 4, 4), (2, 2, 2)]


@pytest.mark.parametrize("name", ["skswin", "separate-swin"])
def test_a_swin_is_explained_by_its_mean_window(name, tmp_path, photos):
    main([repo(tmp_path / "swin", small_model(name)), *photos, "-o", str(tmp_path / "out")])
    layers = json.loads((tmp_path / "out" / "explanation.json").read_text())["layers"]
    assert [layer["layer"] for layer in layers] == [f"stage {s}, layer {n}" for s in (1, 2) for n in (1, 2)]
    assert all(layer["grid"] == [4, 4] for layer in layers)


def test_a_cvt_is_explained_by_its_fewer_keys(tmp_path, photos):
    source = repo(tmp_path / "cvt", small_model("cskcvt"))
    main([source, *photos, "-o", str(tmp_path / "out")])
    layers = json.loads((tmp_path / "out" / "explanation.json").read_text())["layers"]
    assert [layer["grid"] for layer in layers] == [[8, 8], [4, 4]]
    assert layers[1]["largest_entropy"] == pytest.approx(np.log(2 * 2 + 1))
    found = look_into(load_network(source), [Image.open(file) for file in photos])
    # The class token reads the second stage's map: the answer is made of it, and not of what is left of the map.
    assert [tuple(maps.shape) for maps in found.class_maps] == [(2, 8, 8)] * 2


def test_features_have_no_classes(tmp_path, photos):
    model = SKViTModel(small_config("skvit")).eval()
    main([repo(tmp_path / "features", model), photos[0], "-o", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert found["images"] == [{"file": "photo0.png"}]
    assert found["layers"][0]["spread_over_images"] is None  # of one image


@pytest.mark.parametrize(
    ("name", "grids"),
    [("skvit", [[12, 20]] * 2), ("window-former", [[8, 8], [8, 8], [4, 4]]), ("skswin", [[4, 4]] * 4)],
)
def test_a_segmenter_is_explained_below_its_head(name, grids, tmp_path, photos):
    model = AutoModelForSemanticSegmentation.from_config(small_config(name, segmentation_hidden_size=8)).eval()
    processor = SegformerImageProcessor(size={"height": 48, "width": 80})
    images = [Image.open(file) for file in photos]
    found = look_into(load_network(export(model, processor, tmp_path / "segmenter")), images)
    with torch.no_grad():
        expected = model(processor(images, return_tensors="pt").pixel_values, output_attentions=True).attentions
    assert found.rollout is None and found.answers == []
    for layer, weights, grid in zip(found.layers, expected, grids, strict=True):
        torch.testing.assert_close(layer.weights, weights.unflatten(0, (2, -1)).mean(dim=1))
        assert list(layer.grid_size) == grid
        assert layer.weights.shape[-1] == layer.num_class_tokens + grid[0] * grid[1]


def test_grad_cam_of_the_last_stage_is_what_the_logit_is_made_of():
    """Without norm and bias the logit of a linear head is the sum of class weight times mean activation."""
    model = small_model("map-norm-former").double()
    model.skformer.layernorm = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    classes = torch.tensor([0, 2])
    maps = grad_cam(model, images, classes)[-1]
    hidden = model.skformer(images).last_hidden_state
    positions = hidden.shape[2] * hidden.shape[3]
    expected = torch.einsum("bchw,bc->bhw", hidden, model.classifier.weight[classes] / positions).relu()
    torch.testing.assert_close(maps, expected)


def test_what_cannot_be_explained_is_said(tmp_path, photos):
    model = repo(tmp_path / "spatial", small_model("spatial-vit"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    cases = {
        (model, photos[0]): "has no layer that attends",
        (model, str(broken)): "broken.png cannot be read as an image",
        (str(tmp_path / "nowhere"), photos[0]): "could not be loaded",
    }
    for arguments, message in cases.items():
        with pytest.raises(SystemExit, match=message):
            main([*arguments, "-o", str(tmp_path / "out")])
        assert not (tmp_path / "out").exists()
