"""What the page shows is what the network did."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification

from sk_transformers import SKViTModel, calibrate, create_model
from sk_transformers.demo.mechanism import Layer, Network, check_maps, load_network, principal_colors, read
from sk_transformers.demo.page import attention_html, classes_html, evidence_html, keys_html
from sk_transformers.demo.pictures import SIDE, attention_picture, bars, figure
from sk_transformers.evaluation.attention_quantities import rollout_of_positions
from sk_transformers.evaluation.grad_cam import grad_cam
from sk_transformers.hub.export import export

from ..support.small_models import small_model
from .conftest import PROCESSOR


def pixel_values(image):
    return PROCESSOR(image, return_tensors="pt").pixel_values


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_reading_is_the_networks_output(index, repos, digits):
    image = Image.open(digits[0])
    reading = read(load_network(repos[index]), image)
    model = AutoModelForImageClassification.from_pretrained(repos[index]).eval()
    with torch.no_grad():
        outputs = model(pixel_values(image), output_attentions=True)
    assert list(reading.probabilities.values()) == pytest.approx(outputs.logits[0].softmax(0).tolist(), rel=1e-4)
    assert reading.seen.tobytes() == image.tobytes()  # 32x32 already
    assert len(reading.layers) == 2
    for layer, weights in zip(reading.layers, outputs.attentions):
        grid, on_class_tokens = layer.weights_of_position(
            head=2, row=1, column=3
        )  # the eighth of 4x4, after the class token
        np.testing.assert_allclose(grid.ravel(), weights[0, 1, 8, 1:], rtol=2e-3)
        assert on_class_tokens == pytest.approx(weights[0, 1, 8, 0].item(), rel=2e-3)
        grid, _ = layer.weights_of_class_token(head=0)
        np.testing.assert_allclose(grid.ravel(), weights[0].mean(0)[0, 1:], rtol=2e-3)


def test_static_keys_are_parameters_and_others_computed(repos, digits):
    first, second = (Image.open(path) for path in digits)
    for index, is_static in ((0, True), (1, True), (2, False)):
        network = load_network(repos[index])
        layers = [read(network, image).layers[0] for image in (first, second)]
        assert layers[0].key_is_static is layers[1].key_is_static is is_static
        assert np.array_equal(layers[0].keys, layers[1].keys) is is_static
        if is_static:
            expected = network.mixers[0].key[:, 1:].detach().numpy().astype(np.float16)
            assert np.array_equal(layers[0].keys, expected)
    hidden = {}
    attention = network.mixers[0]
    attention.register_forward_hook(lambda module, inputs, output: hidden.update(tokens=inputs[0]))
    keys = read(network, first).layers[0].keys
    with torch.no_grad():
        expected = attention.k_proj(hidden["tokens"])[0, 1:].unflatten(1, (2, -1)).transpose(0, 1)
    np.testing.assert_allclose(keys, expected, rtol=2e-3, atol=1e-4)


def test_hybrids_have_a_grid_in_each_layer():
    model = create_model("cskaformer-nano").eval()
    network = Network("nano", "mixed", model, PROCESSOR.__class__(size={"height": 64, "width": 64}))
    layers = read(network, Image.new("L", (50, 20))).layers
    assert [layer.grid_size for layer in layers] == [(8, 8), (4, 4), (2, 2)]
    assert [layer.key_is_static for layer in layers] == [True, False, False]
    weights, on_class_tokens = layers[0].weights_of_position(head=0, row=7, column=7)
    assert weights.sum() == pytest.approx(1, abs=2e-3) and on_class_tokens == 0


def test_convolved_keys_are_those_that_meet_the_queries():
    mixers = ["separable_conv", "separable_conv", "conv_key", "attention"]
    model = create_model("cskaformer-nano", token_mixers=mixers, initializer_range=0.1).eval()
    queries = {}
    mixer = model.skformer.stages[2].layers[0].mixer
    mixer.q_proj.register_forward_hook(lambda module, inputs, output: queries.update(tokens=output[0].detach()))
    network = Network("nano", "mixed", model, PROCESSOR.__class__(size={"height": 64, "width": 64}))
    layer = read(network, Image.new("L", (50, 20), 90)).layers[0]
    query = queries["tokens"].unflatten(1, (len(layer.keys), -1)).transpose(0, 1)
    weights = (query @ torch.from_numpy(layer.keys).float().mT * query.shape[2] ** -0.5).softmax(dim=-1)
    np.testing.assert_allclose(layer.attention, weights, rtol=5e-3, atol=1e-4)


def test_a_vit_shows_rollout_and_a_hybrid_grad_cam(repos, digits):
    image = Image.open(digits[0])
    network = load_network(repos[0])
    reading = read(network, image)
    with torch.no_grad():
        outputs = network.model(pixel_values(image), output_attentions=True)
    expected = rollout_of_positions(outputs.attentions, (4, 4), num_class_tokens=1)[0]
    assert reading.evidence.title == "Attention rollout"
    np.testing.assert_allclose(reading.evidence.map, expected, rtol=1e-4)

    model = create_model("skaformer-micro-32", id2label={i: f"class {i}" for i in range(10)}).eval()
    hybrid = Network("hybrid", "mixed", model, PROCESSOR)
    hybrid_reading = read(hybrid, image)
    answer = max(hybrid_reading.probabilities, key=hybrid_reading.probabilities.get)
    assert hybrid_reading.evidence.title == f"Grad-CAM of {answer}, stage 3"  # the fourth has 2x2 positions
    expected = grad_cam(model, pixel_values(image), torch.tensor([int(answer.split()[1])]))[3][0]
    np.testing.assert_allclose(hybrid_reading.evidence.map, expected, rtol=1e-4)
    html = evidence_html([network, hybrid], [reading, hybrid_reading])
    assert html.count("<img") == 2 and f"Grad-CAM of {answer}, stage 3." in html


def test_colors_are_principal_components():
    rng = np.random.default_rng(0)
    strengths = np.array([9, 5, 3, 0.1])
    rows = rng.normal(size=(500, 4)) * strengths
    colors = principal_colors(rows @ np.linalg.qr(rng.normal(size=(4, 4)))[0].T + 7)  # turned and moved
    assert colors.shape == (500, 3) and colors.min() == 0 and colors.max() == 1
    correlation = np.abs(np.corrcoef(colors.T, rows[:, :3].T)[:3, 3:])
    assert (np.diag(correlation) > 0.95).all()
    assert np.array_equal(principal_colors(np.ones((5, 4))), np.zeros((5, 3)))
    assert principal_colors(rng.normal(size=(2, 1))).shape == (2, 3)


def test_the_brightest_position_is_the_largest_weight_and_uniform_weights_are_dim():
    weights = np.full((4, 4), 0.01)
    weights[1, 2] = 0.85
    picture = np.asarray(attention_picture(Image.new("RGB", (32, 32)), weights, (3, 0))).sum(axis=2)
    cells = picture.reshape(4, SIDE // 4, 4, SIDE // 4)[:, 30:60, :, 30:60].mean(axis=(1, 3))
    assert np.unravel_index(cells.argmax(), (4, 4)) == (1, 2)
    even = np.asarray(attention_picture(Image.new("RGB", (32, 32)), np.full((4, 4), 1 / 16), None)).sum(axis=2)
    assert even.max() < cells.max() / 2


def test_a_cvts_weights_lie_on_the_grid_of_its_keys(digits, tmp_path):
    image = Image.open(digits[0])
    network = load_network(export(small_model("cskcvt"), PROCESSOR, tmp_path / "repo"))
    reading = read(network, image)
    with torch.no_grad():
        expected = network.model(pixel_values(image), output_attentions=True).attentions
    first, last = reading.layers
    grid, _ = first.weights_of_position(head=1, row=2, column=7)  # of 8x8, with keys of 4x4
    np.testing.assert_allclose(grid, expected[0][0, 0, 2 * 8 + 7].view(4, 4), rtol=2e-3)
    grid, on_class_token = last.weights_of_class_token(head=2)
    np.testing.assert_allclose([on_class_token, *grid.ravel()], expected[1][0, 1, 0], rtol=2e-3)
    assert first.key_colors(0).shape == (4, 4, 3) and last.key_colors(1).shape == (2, 2, 3)
    assert reading.evidence.map.shape == (8, 8) and "stage 1" in reading.evidence.title
    page = attention_html([network], [reading], 1, 0, (0.9, 0.9))
    assert page.count("<img") == 1


def test_labels_cannot_become_markup():
    assert "<script>" not in bars("<script>", "<script>", {"<script>": 1.0})
    assert "<script>" not in figure(Image.new("RGB", (2, 2)), '"><script>', "<script>")


def test_networks_without_attention_are_refused(tmp_path):
    model = create_model("convformer-nano")
    model.save_pretrained(tmp_path / "repo")
    PROCESSOR.save_pretrained(tmp_path / "repo")
    with pytest.raises(ValueError, match="has no layer that attends: there is nothing to show"):
        load_network(tmp_path / "repo")
    export(create_model("skswin-nano"), PROCESSOR, tmp_path / "windows")
    with pytest.raises(ValueError, match="attends within windows, which have no map of the whole image to show"):
        check_maps(load_network(tmp_path / "windows"))
    with pytest.raises(ValueError, match="nowhere could not be loaded"):
        load_network(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def features(repos, tmp_path_factory):
    """Networks without a classifier: one that attends, and what a calibration makes of it."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(24)]
    source = export(SKViTModel.from_pretrained(repos[2]), PROCESSOR, folder / "source")
    options = {"layers": "1", "mixer": ["static_map"], "fit_steps": 2}
    return str(source), str(calibrate(str(source), images, folder / "calibrated", **options).folder)


def test_a_calibrated_network_is_shown_beside_its_source(features, digits):
    networks = [load_network(repo) for repo in features]
    assert [network.mechanism for network in networks] == ["Attention", "Static map and Attention"]
    image = Image.open(digits[0])
    readings = [read(network, image) for network in networks]
    assert [[layer.key_is_static for layer in reading.layers] for reading in readings] == [[False] * 2, [False, True]]
    with torch.no_grad():
        expected, found = (network.model(pixel_values(image)).pooler_output[0] for network in networks)
    cosine = torch.nn.functional.cosine_similarity(expected, found, dim=0)
    assert f"their cosine to those of source is {cosine:.3f}." in classes_html(networks, readings)
    assert attention_html(networks, readings, 2, 0, None).count("<img") == 2
    assert "Trained, the same for every image" in keys_html(networks, readings, 2, 0)


def test_a_damaged_network_is_refused(repos, tmp_path):
    shutil.copytree(repos[0], tmp_path / "headless")
    tensors = load_file(tmp_path / "headless" / "model.safetensors")
    del tensors["classifier.bias"]
    save_file(tensors, tmp_path / "headless" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"headless is not a trained network: its weights lack classifier.bias\."):
        load_network(tmp_path / "headless")
    shutil.copytree(repos[0], tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="damaged could not be loaded: "):
        load_network(tmp_path / "damaged")


def test_entropy_is_that_of_a_heads_queries():
    uniform, one = np.full((4, 4), 0.25), np.eye(4)
    layer = Layer((2, 2), 0, np.stack([uniform, one]).astype(np.float16), np.zeros((2, 4, 3)), key_is_static=True)
    assert layer.entropy(1) == pytest.approx(np.log(4), abs=1e-3)
    assert layer.entropy(2) == pytest.approx(0, abs=1e-6)
    assert layer.entropy(0) == pytest.approx(np.log(4) / 2, abs=1e-3)
