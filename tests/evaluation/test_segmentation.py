"""Intersection over union and accuracy: a case by hand, torchmetrics, masks of several sizes, and processes."""

import json

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from sk_transformers import SKFormerForSemanticSegmentation
from sk_transformers.data.loaders import UNREADABLE, stack_labels
from sk_transformers.data.masks import IGNORED
from sk_transformers.data.options import DataOptions
from sk_transformers.evaluation.options import EvaluationOptions
from sk_transformers.evaluation.run import evaluate_model
from sk_transformers.evaluation.segmentation import (
    SegmentationPredictions,
    measure,
    names_of_labels,
    reduce_logits,
    summarize,
)
from sk_transformers.hub import export
from sk_transformers.image_processing import image_processor_for, segmentation_processor

from ..support.mask_files import CLASSES, write_pairs
from ..support.networks import drawn
from ..support.small_models import small_config
from ..support.training import launch


def predictions_of(logits, labels, label_map=None):
    columns = reduce_logits(logits, labels, label_map)
    readable = columns["labels"] != UNREADABLE
    return SegmentationPredictions(
        **{name: column[readable] for name, column in columns.items()}, seconds=1, measured_images=2
    )


def certain(classes, count):
    """Logits of which each pixel's class is the largest."""
    return 10.0 * F.one_hot(classes, count).movedim(-1, 1)


def test_by_hand():
    """Of class 0 there are 3 pixels, 2 of them found; of class 1 2, both found, beside one of class 0; class 2 is in no
    mask and said of none; class 3 is in no mask and said of a pixel of class 4, which is never found.
    """
    right = torch.tensor([[[0, 0, 0, 1, 1, 4, IGNORED]]])
    said = torch.tensor([[[0, 0, 1, 1, 1, 3, 2]]])
    figures = measure(predictions_of(certain(said, 5), right))
    assert figures["mean_iou"] == pytest.approx((2 / 3 + 2 / 3 + 0 + 0) / 4)
    assert figures["mean_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert figures["pixel_accuracy"] == pytest.approx(4 / 6)
    whole = summarize(predictions_of(certain(said, 5), right), list("abcde"))
    assert whole["per_class"] == {
        "a": {"pixels": 3, "iou": pytest.approx(2 / 3), "accuracy": pytest.approx(2 / 3)},
        "b": {"pixels": 2, "iou": pytest.approx(2 / 3), "accuracy": 1.0},
        "e": {"pixels": 1, "iou": 0.0, "accuracy": 0.0},
    }
    assert names_of_labels(predictions_of(certain(said, 5), right), list("abcde")) == ["a 3\tb 2\te 1"]


def test_torchmetrics_says_the_same_of_masks_of_several_sizes():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 6, 8, generator=generator)
    masks = [torch.randint(0, 4, size, generator=generator) for size in ((12, 16), (7, 5), (6, 20))]
    for mask in masks:
        mask[0, :3] = IGNORED
    resized = [F.interpolate(one[None], mask.shape, mode="bilinear")[0] for one, mask in zip(logits, masks)]
    said, right = (torch.cat(parts, -1) for parts in (
        [one.flatten(1) for one in resized], [mask.flatten() for mask in masks]))  # fmt: skip
    predictions = predictions_of(logits, stack_labels(masks))
    figures = measure(predictions)
    settings = {"num_classes": 4, "ignore_index": IGNORED}
    assert figures["mean_iou"] == pytest.approx(MulticlassJaccardIndex(**settings)(said.T, right).item())
    assert figures["mean_accuracy"] == pytest.approx(MulticlassAccuracy(**settings)(said.T, right).item())
    pixels = MulticlassAccuracy(**settings, average="micro")(said.T, right).item()
    assert figures["pixel_accuracy"] == pytest.approx(pixels)
    losses = [F.cross_entropy(one[None], mask[None], ignore_index=IGNORED) for one, mask in zip(resized, masks)]
    torch.testing.assert_close(predictions.loss, torch.stack(losses))


def test_unreadable_images_and_classes_in_another_order():
    right = torch.tensor([[[0, 1]], [[UNREADABLE, UNREADABLE]]])
    predictions = predictions_of(certain(torch.tensor([[[2, 0]], [[0, 0]]]), 3), right, torch.tensor([2, 0]))
    assert len(predictions.labels) == 1 and measure(predictions)["mean_iou"] == 1
    with pytest.raises(ValueError, match="none of the 1 masks has a pixel with a class"):
        measure(predictions_of(certain(torch.tensor([[[0, 1]]]), 3), torch.full((1, 1, 2), IGNORED)))


@pytest.mark.slow
def test_two_processes_with_uneven_ends_measure_what_one_does(tmp_path):
    config = small_config("skaformer", segmentation_hidden_size=8, num_labels=2)
    config.id2label, config.label2id = dict(enumerate(CLASSES)), {name: index for index, name in enumerate(CLASSES)}
    processor = segmentation_processor(image_processor_for(64), 64)
    model = export(drawn(SKFormerForSemanticSegmentation(config)).float(), processor, tmp_path / "model")
    data = write_pairs(tmp_path / "data", counts=(("train", 2), ("val", 5)))
    options = EvaluationOptions(str(model), per_device_eval_batch_size=2, output_dir=str(tmp_path / "1"))
    evaluate_model(options, DataOptions(str(data), problem_type="segmentation", classes=CLASSES))
    done = launch(
        "--model", model, "--dataset", data, "--classes", *CLASSES, "--problem_type", "segmentation",
        "--per_device_eval_batch_size", 2, "--output_dir", tmp_path / "2",
        program=["-m", "sk_transformers.cli.evaluate"], processes=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / name / "classes.png").is_file() for name in "12")
    figures = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in "12"]
    for name in ("images", "mean_iou", "mean_accuracy", "pixel_accuracy", "per_class", "labels_sha256"):
        assert figures[0][name] == figures[1][name]
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"])
