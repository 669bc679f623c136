"""The page shows what segmenters and detectors say: the classes, boxes and masks of the model's own answers."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    SegformerImageProcessor,
    ViTConfig,
    ViTForImageClassification,
)

from sk_transformers.cli.demo import main
from sk_transformers.demo.dense import SIDE
from sk_transformers.demo.mechanism import check_maps, load_network, read
from sk_transformers.demo.page import attention_html, build_page, classes_html, evidence_html, keys_html
from sk_transformers.demo.space import save_space
from sk_transformers.evaluation.mask_files import palette
from sk_transformers.hub import export

from ..hub.test_detectors import PROCESSOR as DETECTION_PROCESSOR
from ..hub.test_export import LABELS
from ..models.test_detection import confident
from ..support.networks import drawn
from ..support.small_models import small_config
from .conftest import PROCESSOR
from .test_page import served

SEGMENTATION_PROCESSOR = SegformerImageProcessor(size={"height": 48, "width": 80})  # of another shape than its keys
NAMES = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}


def segmenter(folder, name, **overrides):
    config = small_config(name, segmentation_hidden_size=8, **NAMES, **overrides)
    model = drawn(AutoModelForSemanticSegmentation.from_config(config)).float()
    return load_network(export(model, SEGMENTATION_PROCESSOR, folder / f"{name} segmenter"))


def detector(folder, name="cskaformer", **overrides):
    torch.manual_seed(0)
    config = small_config(name, detection_hidden_size=8, **NAMES, **overrides)
    model = confident(AutoModelForObjectDetection.from_config(config).eval())
    return load_network(export(model, DETECTION_PROCESSOR, folder / f"{name} detector"))


@pytest.fixture(scope="module")
def photograph():
    """50 pixels wide and 40 high, of all colors."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    return segmenter(folder, "skvit"), segmenter(folder, "cskaformer"), detector(folder)


@pytest.fixture(scope="module")
def readings(networks, photograph):
    return [read(network, photograph) for network in networks]


def test_classes_are_those_of_the_pipeline(networks, readings, photograph):
    for network, reading in zip(networks[:2], readings):
        with torch.no_grad():
            outputs = network.model(SEGMENTATION_PROCESSOR(photograph, return_tensors="pt").pixel_values)
        shown = reading.scene.classes
        assert shown.shape == (round(SIDE * 40 / 50), SIDE)
        (expected,) = SEGMENTATION_PROCESSOR.post_process_semantic_segmentation(outputs, [shown.shape])
        assert np.array_equal(shown, expected)
        page = classes_html([network], [reading])
        for number in expected.unique().tolist():
            share, color = (expected == number).float().mean(), " ".join(map(str, palette()[3 * number :][:3]))
            assert f'rgb({color})"></i>{LABELS[number]} <span>{100 * share:.1f} %' in page


def test_objects_are_those_of_the_model(networks, readings, photograph):
    network, reading = networks[2], readings[2]
    with torch.no_grad():
        outputs = network.model(**DETECTION_PROCESSOR(photograph, return_tensors="pt"))
    (expected,) = network.model.post_process_instance_segmentation(outputs, 0.5, [(614, SIDE)])
    assert len(expected["labels"]) and np.array_equal(reading.scene.masks, expected["masks"])
    page = classes_html([network], [reading])
    captions = re.findall(r'<span class="sk-[^>]*>([^<]*)</span></div>', page)[::-1]
    scores = zip(expected["labels"].tolist(), expected["scores"].tolist())
    assert captions == [f"{LABELS[label]} {100 * score:.0f} %" for label, score in scores]
    left, top, width, height = (
        float(re.findall(rf"{side}: ([\d.]+)%", page)[-1]) for side in ("left", "top", "width", "height")
    )
    x, y, right, bottom = (expected["boxes"][0] / torch.tensor([SIDE, 614, SIDE, 614]) * 100).tolist()
    assert (left, top, width, height) == pytest.approx((x, y, right - x, bottom - y), abs=0.01)


def test_maps_lie_on_the_grid_of_the_padded_image(networks, readings):
    vit, former = ([layer.grid_size for layer in reading.layers] for reading in readings[:2])
    assert vit == [(12, 20)] * 2  # of 4 pixels
    assert former == [(8, 12), (8, 12), (4, 6), (2, 3)][-len(former) :]  # 96 pixels wide with padding
    assert readings[1].seen.size == (96, 64)
    for reading in readings:
        for layer in reading.layers:
            weights, on_class_token = layer.weights_of_position(0, 1, 1)
            assert weights.sum() + on_class_token == pytest.approx(1, abs=5e-3)
    first = readings[0].layers[0]
    assert first.key_is_static and first.key_colors(0).shape == (4, 4, 3)  # as it was trained
    for html in (attention_html(networks, readings, 1, 0, (0.5, 0.5)), keys_html(networks, readings, 1, 0)):
        assert html.count("<img") == 3
    assert "None of" in evidence_html(networks, readings)


def test_a_page_of_several_tasks(networks, repos, photograph):
    mixed = [networks[0], load_network(repos[1]), networks[2]]
    page = classes_html(mixed, [read(network, photograph) for network in mixed])
    assert page.count("<section") == 3 and page.count("<ol>") == 1 and page.count('class="sk-scene"') == 2
    assert "Not shown: a segmenter or detector has an answer for each place" in str(build_page(networks).config)
    assert "Not shown" not in str(build_page(mixed).config)


@pytest.mark.slow
def test_a_space_shows_classes_and_boxes(networks, readings, photograph, open_page, tmp_path):
    photograph.save(tmp_path / "photograph.png")
    space = save_space([network.model.name_or_path for network in networks[1:]], tmp_path / "space")
    with served(space, tmp_path) as address:
        page = open_page(address, width=390, height=844)
        page.wait_for_selector("#image input[type=file]", state="attached")
        page.set_input_files("#image input[type=file]", tmp_path / "photograph.png")
        page.wait_for_selector("#attention img")
        assert page.locator("#classes .sk-legend li").count() == len(np.unique(readings[1].scene.classes))
        boxes = page.eval_on_selector_all(".sk-box", "boxes => boxes.map(one => one.getBoundingClientRect())")
        picture = page.locator("#classes img").nth(1).bounding_box()
        scale, expected = picture["width"] / SIDE, readings[2].scene.boxes[::-1]
        for box, (left, top, right, bottom) in zip(boxes, expected, strict=True):
            assert box["x"] - picture["x"] == pytest.approx(left * scale, abs=1)
            assert box["y"] - picture["y"] == pytest.approx(top * scale, abs=1)
            assert box["width"] == pytest.approx((right - left) * scale, abs=1)
            assert box["height"] == pytest.approx((bottom - top) * scale, abs=1)
        assert not page.locator("#evidence").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_networks_without_maps_show_their_answer(tmp_path, photograph, monkeypatch):
    mixers = ["separable_conv"] * 4
    windows = segmenter(tmp_path, "skswin"), segmenter(tmp_path, "window-former")
    none = detector(tmp_path, "skaformer", token_mixers=mixers, detection_masks=False, detection_score_threshold=0.99)
    networks = [*windows, none]
    readings = [read(network, photograph) for network in networks]
    page = attention_html(networks, readings, 1, 0, None)
    assert "<img" not in page and page.count("segmenter attends within windows of this image") == 2
    assert "detector has no layer that attends." in page
    assert "No object with a score of at least 50%. The highest is 0.0%." in classes_html(networks, readings)
    assert "Not shown: these networks attend within windows or not at all" in str(build_page([windows[0], none]).config)
    for network in networks:
        check_maps(network)
    large = segmenter(tmp_path, "skaformer")
    monkeypatch.setattr("sk_transformers.demo.mechanism.MAX_WEIGHTS", 100)
    assert re.fullmatch(r"has \d+ million attention weights .* too many to show\.", read(large, photograph).no_maps)


def test_one_layer_needs_no_slider(tmp_path):
    network = segmenter(tmp_path, "skvit", num_hidden_layers=1)
    sliders = [one["props"] for one in build_page([network]).config["components"] if one["type"] == "slider"]
    assert [slider["visible"] for slider in sliders] == [False, True, True, True]


def test_a_network_of_another_project_is_refused(tmp_path):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    ViTForImageClassification(ViTConfig(image_size=32, **sizes)).save_pretrained(tmp_path)
    PROCESSOR.save_pretrained(tmp_path)
    with pytest.raises(
        SystemExit, match="could not be loaded: it is a ViTForImageClassification, and no network of th"
    ):
        main([str(tmp_path)])
