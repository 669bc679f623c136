"""Heads of transformers over our backbones, exported, run where this package is not installed."""

import json

import pytest
import torch
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
)

from sk_transformers.cli.export import main
from sk_transformers.hub import export_head
from sk_transformers.hub.preflight import check_files, repo_files

from ..support.small_models import small_config, small_model
from .test_export import load_elsewhere


def mask2former(backbone):
    stages = [f"stage{number}" for number in range(1, 5)]
    config = Mask2FormerConfig(
        backbone_config=small_config(backbone, out_features=stages), feature_size=32, mask_feature_size=32,
        hidden_dim=32, encoder_feedforward_dim=32, encoder_layers=1, decoder_layers=2, num_attention_heads=2,
        dim_feedforward=32, num_queries=5, num_labels=3,
    )  # fmt: skip
    return Mask2FormerForUniversalSegmentation(config), Mask2FormerImageProcessor(size={"height": 64, "width": 64})


def detr(backbone):
    config = DetrConfig(
        use_timm_backbone=False, backbone=None, use_pretrained_backbone=False, backbone_config=small_config(backbone),
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=5, num_labels=3,
    )  # fmt: skip
    return DetrForObjectDetection(config), DetrImageProcessor(size={"height": 64, "width": 64})


@pytest.mark.slow
@pytest.mark.parametrize(("head", "backbone"), [(mask2former, "cskaformer"), (detr, "skaformer")])
def test_it_opens_elsewhere(head, backbone, tmp_path):
    torch.manual_seed(0)
    model, processor = head(backbone)
    model.eval()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "saved")
    main([str(tmp_path / "saved"), str(tmp_path / "head")])
    repo = tmp_path / "head"
    check_files(repo, repo_files(repo))
    report, tensors = load_elsewhere(repo, tmp_path / "work", "load_head.py")
    assert report["class"] == type(model).__name__
    with torch.no_grad():
        outputs = model(tensors["pixel_values"])
    expected = outputs["logits" if head is detr else "masks_queries_logits"]
    torch.testing.assert_close(tensors["output"], expected)
    torch.testing.assert_close(tensors["again"], expected)
    auto_map = json.loads((repo / "config.json").read_text())["auto_map"]
    auto_class, task = {
        detr: ("AutoModelForObjectDetection", "object-detection"),
        mask2former: ("AutoModelForUniversalSegmentation", "image-segmentation"),
    }[head]
    assert {"AutoConfig", auto_class} <= set(auto_map)
    assert f"pipeline_tag: {task}" in (repo / "README.md").read_text()


def test_a_folder_that_is_no_head(tmp_path):
    with pytest.raises(SystemExit, match=r"could not be exported .*: expected a model of transformers over a backbone"):
        main([str(tmp_path), str(tmp_path / "head")])


def test_a_network_of_this_package_is_no_head(tmp_path):
    small_model("skvit").save_pretrained(tmp_path / "network")
    with pytest.raises(SystemExit, match="it holds a SKViTForImageClassification, which is none of transformers"):
        main([str(tmp_path / "network"), str(tmp_path / "head")])


def test_what_has_no_backbone_of_ours_is_refused(tmp_path):
    with pytest.raises(TypeError, match="export_head takes a model of transformers over .*, not SKViTForImage"):
        export_head(small_model("skvit"), None, tmp_path / "head")
