"""An exported detector is a pipeline where this package is not installed, and passes what a push checks."""

import json

import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoModelForObjectDetection, ViTImageProcessor

from sk_transformers.complexity import count_macs
from sk_transformers.hub import export
from sk_transformers.hub.preflight import check_files, check_loading, repo_files
from sk_transformers.image_processing import detection_processor, output_size, with_output_size

from ..models.test_detection import confident
from ..support.small_models import small_config
from .test_export import LABELS, load_elsewhere

PROCESSOR = detection_processor(ViTImageProcessor(image_mean=[0.4] * 3, image_std=[0.2] * 3), (48, 64))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    config = small_config(
        "cskaformer", detection_hidden_size=8, id2label=LABELS, label2id={v: k for k, v in LABELS.items()}
    )
    torch.manual_seed(0)
    model = confident(AutoModelForObjectDetection.from_config(config).eval())
    return model, export(model, PROCESSOR, tmp_path_factory.mktemp("detector") / "tiny")


@pytest.mark.slow
def test_it_detects_elsewhere(exported, tmp_path):
    model, repo = exported
    answers, tensors = load_elsewhere(repo, tmp_path / "work", "load_detector.py")
    with torch.no_grad():
        expected = model(tensors["pixel_values"], tensors["pixel_mask"])
    torch.testing.assert_close(tensors["logits"], expected.logits)
    torch.testing.assert_close(tensors["boxes"], expected.pred_boxes)
    torch.testing.assert_close(tensors["logits_again"], expected.logits)
    (instances,) = model.post_process_instance_segmentation(expected, 0.1, [(40, 50)])
    assert torch.equal(tensors["masks"], instances["masks"].to(torch.uint8)) and len(instances["masks"])
    boxes = [tuple(int(side) for side in box) for box in instances["boxes"].tolist()]
    assert [(one["label"], *one["box"].values()) for one in answers[0]] == [
        (LABELS[int(label)], *box) for label, box in zip(instances["labels"], boxes)
    ]
    assert max(one["box"]["xmax"] for one in answers[1]) > 50  # in pixels of the larger image


@pytest.mark.slow
def test_it_passes_what_a_push_checks(exported):
    _, repo = exported
    check_files(repo, repo_files(repo))
    assert check_loading(repo) == []


def test_its_folder_says_what_it_is(exported):
    model, repo = exported
    auto_map = json.loads((repo / "config.json").read_text())["auto_map"]
    module = f"modeling_{model.config.model_type}_detection"
    assert auto_map["AutoModelForObjectDetection"] == f"{module}.{type(model).__name__}"
    assert "AutoModelForSemanticSegmentation" not in auto_map
    assert all((repo / f"{reference.split('.')[0]}.py").is_file() for reference in auto_map.values())
    assert not (repo / "handler.py").exists()  # it answers with classes of images
    card = (repo / "README.md").read_text()
    assert "pipeline_tag: object-detection" in card and "objects and their masks (Mask R-CNN)" in card
    assert "detect(" in card and "torch, torchvision and transformers only" in card and "classif" not in card


def test_the_image_processor_fits_images_whole():
    inputs = PROCESSOR(Image.new("RGB", (40, 80), (102, 102, 102)), return_tensors="pt")
    assert inputs.pixel_values.shape == (1, 3, 48, 64)
    assert inputs.pixel_mask[0].any(0).sum() == 24 and inputs.pixel_mask[0].any(1).sum() == 48
    assert inputs.pixel_values.abs().max() < 1e-6  # of the mean
    larger = with_output_size(PROCESSOR, [96, 64])
    assert output_size(PROCESSOR) == (48, 64) and output_size(larger) == (96, 64)
    assert larger(Image.new("RGB", (40, 80)), return_tensors="pt").pixel_values.shape == (1, 3, 96, 64)
    assert detection_processor(larger, 32) is larger


def test_multiply_adds_count_the_heads(exported):
    """Those of the network below are counted elsewhere; here the heads, by the shapes of their weights."""
    model, _ = exported
    config, side, parts = model.config, model.config.image_size, model.mask_rcnn
    grids = [side // stride for stride in config.strides]
    positions = [grid**2 for grid in grids] + [((grids[-1] + 1) // 2) ** 2]
    size_of = lambda *names: sum(parts.get_submodule(name).weight.numel() for name in names)  # noqa: E731
    pyramid = sum(
        count * size_of(f"fpn.inner_blocks.{level}.0", f"fpn.layer_blocks.{level}.0")
        for level, count in enumerate(positions[:-1])
    )
    proposals = sum(positions) * size_of("rpn.head.conv.0.0", "rpn.head.cls_logits", "rpn.head.bbox_pred")
    boxes = 1000 * size_of(
        "roi_heads.box_head.fc6", "roi_heads.box_head.fc7", "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
    )  # fmt: skip
    convolutions = [f"roi_heads.mask_head.{layer}.0" for layer in range(4)]
    masks = 100 * 14**2 * size_of(*convolutions, "roi_heads.mask_predictor.conv5_mask")
    masks += 100 * 28**2 * size_of("roi_heads.mask_predictor.mask_fcn_logits")
    both = count_macs(config, auto_class=AutoModelForObjectDetection)
    assert both - count_macs(config, auto_class=AutoModel) == pyramid + proposals + boxes + masks
