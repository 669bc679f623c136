"""Heads of transformers over our backbones, exported, run where this package is not installed."""

import json

import pytest
import torch
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    DPTConfig,
    DPTForDepthEstimation,
    DPTForSemanticSegmentation,
    DPTImageProcessor,
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


DEPTH = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 16}
PROCESSOR = DPTImageProcessor(size={"height": 24, "width": 32})


def depth_backbone(backbone, **overrides):
    layers = {"num_hidden_layers": 4, "out_features": [f"stage{number}" for number in range(1, 5)]}
    if not backbone.endswith("vit"):
        del layers["num_hidden_layers"]
    else:
        layers["reshape_hidden_states"] = False
    return small_config(backbone, **{**layers, **overrides})


def dpt(backbone, **overrides):
    config = DPTConfig(backbone_config=depth_backbone(backbone, **overrides), **DEPTH)
    return DPTForDepthEstimation(config), PROCESSOR


def depth_anything(backbone, patch_size=4, **overrides):
    config = DepthAnythingConfig(
        backbone_config=depth_backbone(backbone, **overrides), patch_size=patch_size, reassemble_hidden_size=16,
        head_hidden_size=8, **DEPTH,
    )  # fmt: skip
    return DepthAnythingForDepthEstimation(config), PROCESSOR


HEADS = {  # the network, the output that is compared, the Auto class and the task
    mask2former: ("cskaformer", "masks_queries_logits", "AutoModelForUniversalSegmentation", "image-segmentation"),
    detr: ("skaformer", "logits", "AutoModelForObjectDetection", "object-detection"),
    dpt: ("cskvit", "predicted_depth", "AutoModelForDepthEstimation", "depth-estimation"),
    depth_anything: ("skvit", "predicted_depth", "AutoModelForDepthEstimation", "depth-estimation"),
}


@pytest.mark.slow
@pytest.mark.parametrize("heads", [(mask2former, dpt), (detr, depth_anything)])
def test_they_open_elsewhere(heads, tmp_path):
    """Each is the first of its backbone in a process that opens both."""
    models = {}
    for head in heads:
        torch.manual_seed(0)
        model, processor = head(HEADS[head][0])
        models[head.__name__] = model.eval()
        for part in (model, processor):
            part.save_pretrained(tmp_path / head.__name__)
        main([str(tmp_path / head.__name__), str(tmp_path / "heads" / head.__name__)])
    reports, tensors = load_elsewhere(tmp_path / "heads", tmp_path / "work", "load_head.py")
    for head in heads:
        _, output, auto_class, task = HEADS[head]
        name, model = head.__name__, models[head.__name__]
        assert reports[name]["class"] == type(model).__name__
        with torch.no_grad():
            expected = model(tensors[f"{name}.pixel_values"])[output]
        assert expected.std() > 0
        torch.testing.assert_close(tensors[f"{name}.output"], expected)
        torch.testing.assert_close(tensors[f"{name}.again"], expected)
        repo = tmp_path / "heads" / name
        check_files(repo, repo_files(repo))
        assert {"AutoConfig", auto_class} <= set(json.loads((repo / "config.json").read_text())["auto_map"])
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


@pytest.mark.parametrize(
    ("head", "backbone", "overrides", "said"),
    [
        (
            dpt,
            "skaformer",
            {},
            "DPT reads tokens of one stride, and an SKFormer has maps of stages: take an SKViT with",
        ),
        (
            depth_anything,
            "skvit",
            {"reshape_hidden_states": True},
            "its SKViT returns maps: set reshape_hidden_states=",
        ),
        (dpt, "skvit", {"patch_size": [4, 4]}, r"patch_size is \[4, 4\] in backbone_config, expected one number: DPT"),
        (depth_anything, "skvit", {"patch_size": 8}, "patch_size is 8, expected 4, that of its backbone_config"),
    ],
)
def test_depth_heads_that_could_not_run(head, backbone, overrides, said, tmp_path):
    model, processor = head(backbone, **overrides)
    with pytest.raises((AttributeError, RuntimeError, TypeError, ValueError)):  # transformers' own
        model(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match=said):
        export_head(model, processor, tmp_path / "head")
    assert not list(tmp_path.iterdir())


def test_a_head_that_builds_no_backbone(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = DPTForSemanticSegmentation(DPTConfig(backbone_config=depth_backbone("skvit"), **sizes, **DEPTH))
    with pytest.raises(TypeError, match="transformers builds no backbone_config in DPTForSemanticSegmentation: take a"):
        export_head(model, PROCESSOR, tmp_path / "head")
