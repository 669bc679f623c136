"""An exported segmenter is a pipeline where this package is not installed, and passes what a push checks."""

import json

import pytest
import torch
from transformers import AutoModel, AutoModelForSemanticSegmentation, SegformerImageProcessor

from sk_transformers.complexity import count_macs
from sk_transformers.hub import export
from sk_transformers.hub.cards.completion import complete_card, evaluation_of
from sk_transformers.hub.preflight import check_files, check_loading, repo_files
from sk_transformers.registration import auto_class_of

from ..support.networks import drawn
from ..support.small_models import small_config
from .test_export import LABELS, load_elsewhere


@pytest.fixture(scope="module", params=["cskaformer", "skvit", "skswin"])
def exported(request, tmp_path_factory):
    config = small_config(
        request.param, segmentation_hidden_size=8, id2label=LABELS, label2id={v: k for k, v in LABELS.items()}
    )
    model = drawn(AutoModelForSemanticSegmentation.from_config(config)).float()
    processor = SegformerImageProcessor(size={"height": 48, "width": 40})
    return model, export(model, processor, tmp_path_factory.mktemp("segmenter") / "tiny")


@pytest.mark.slow
def test_it_segments_elsewhere(exported, tmp_path):
    model, repo = exported
    report, tensors = load_elsewhere(repo, tmp_path / "work", "load_segmenter.py")
    with torch.no_grad():
        expected = model(tensors["pixel_values"]).logits
    torch.testing.assert_close(tensors["logits"], expected)
    torch.testing.assert_close(tensors["logits_again"], expected)
    classes = tensors["classes"]
    assert classes.shape == (40, 50)
    assert sorted(report["labels"]) == sorted(LABELS[int(number)] for number in classes.unique())
    for number in classes.unique():
        assert torch.equal(tensors[f"mask of {LABELS[int(number)]}"] > 0, classes == number)


@pytest.mark.slow
def test_it_passes_what_a_push_checks(exported):
    _, repo = exported
    check_files(repo, repo_files(repo))
    assert check_loading(repo) == []


def test_its_folder_says_what_it_is(exported):
    model, repo = exported
    name = type(model).__name__
    auto_map = json.loads((repo / "config.json").read_text())["auto_map"]
    module = f"modeling_{model.config.model_type}_segmentation"
    assert auto_map["AutoModelForSemanticSegmentation"] == f"{module}.{name}"
    assert all((repo / f"{reference.split('.')[0]}.py").is_file() for reference in auto_map.values())
    assert not (repo / "handler.py").exists()  # it answers with classes of images
    card = (repo / "README.md").read_text()
    assert "pipeline_tag: image-segmentation" in card and "semantic segmenter (UperNet)" in card
    assert "segment(" in card and "classif" not in card and "interpolate_pos_encoding" not in card


def test_an_evaluation_goes_on_its_card(exported, tmp_path):
    _, repo = exported
    record = {"dataset": "streets", "split": "val", "images": 5, "loss": 0.5, "mean_iou": 0.25, "pixel_accuracy": 0.75}
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    card = complete_card(repo, "org/tiny", None, {}, [evaluation_of(tmp_path)], [])
    assert "name: Mean IoU, evaluated" in card and "type: image-segmentation" in card
    assert "| mean IoU | pixel accuracy | loss |" in card and "image-classification" not in card


def test_multiply_adds_count_the_head(exported):
    model, _ = exported
    counted = []

    def count(module, inputs, output):
        fewer = (
            inputs[0] if isinstance(module, torch.nn.ConvTranspose2d) else output
        )  # has the products of a kernel each
        counted.append(fewer[0].numel() * module.weight[0].numel())

    head = [*model.upernet.decode_head.modules(), *getattr(model, "pyramid", torch.nn.Module()).modules()]
    for module in head:
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(count)
    size = model.config.image_size
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    both = count_macs(model.config, auto_class=auto_class_of(type(model).__name__))
    assert both - count_macs(model.config, auto_class=AutoModel) == sum(counted)
