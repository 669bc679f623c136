"""Figures of an evaluation against a second calculation, and the script as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from sk_transformers import create_model
from sk_transformers.hub import export
from sk_transformers.training.evaluation import Predictions, map_labels, summarize
from sk_transformers.training.evaluation_run import evaluate_model
from sk_transformers.training.model import fresh_image_processor
from sk_transformers.training.plots import plot_confusion, plot_reliability

from .image_files import write_images

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate_model.py"
LABELS = ["ant", "bee", "cicada", "dragonfly", "earwig", "fly"]


@pytest.fixture
def predictions():
    labels = torch.randint(0, 5, (500,))  # there is no fly
    logits = torch.randn(500, 6)
    logits[torch.arange(500), labels] += 1.5
    return Predictions(logits, labels, seconds=2.0, measured_images=400)


def test_figures(predictions):
    figures = summarize(predictions, LABELS)
    rows = list(zip(predictions.logits.double(), predictions.labels.tolist()))
    ranks = [sorted(range(6), key=lambda index: -logits[index].item()) for logits, _ in rows]
    right = [ranked[0] == label for ranked, (_, label) in zip(ranks, rows)]
    assert figures["images"] == 500
    assert figures["top1"] == pytest.approx(sum(right) / 500)
    assert figures["top5"] == pytest.approx(sum(label in ranked[:5] for ranked, (_, label) in zip(ranks, rows)) / 500)
    assert figures["loss"] == pytest.approx(-sum(x.log_softmax(0)[y].item() for x, y in rows) / 500)
    assert figures["images_per_second"] == 200
    assert list(figures["per_class"]) == LABELS[:5]
    for index, label in enumerate(LABELS[:5]):
        of_class = [hit for hit, (_, y) in zip(right, rows) if y == index]
        assert figures["per_class"][label] == pytest.approx(sum(of_class) / len(of_class))

    confidences = [x.softmax(0).max().item() for x, _ in rows]
    error = 0.0
    for low in range(15):
        bin_of = [i for i, c in enumerate(confidences) if low / 15 < c <= (low + 1) / 15]
        if bin_of:
            error += abs(sum(right[i] - confidences[i] for i in bin_of)) / 500
    assert figures["calibration_error"] == pytest.approx(error, abs=1e-6)


def test_labels_are_matched_by_name():
    assert map_labels(["fly", "ant"], dict(enumerate(LABELS))).tolist() == [5, 0]
    with pytest.raises(ValueError, match=r"the data has class 'moth', which the model does not: it knows ant, bee"):
        map_labels(["ant", "moth"], dict(enumerate(LABELS)))


@pytest.mark.parametrize("classes", [6, 30, 100])
def test_plots_are_written(predictions, tmp_path, classes):
    names = [f"class {i}" for i in range(classes)]
    predictions.logits = torch.cat([predictions.logits, torch.randn(500, classes - 6)], dim=1)
    plot_confusion(predictions, names, tmp_path / "confusion.png")
    plot_reliability(predictions, 0.1, tmp_path / "reliability.png")
    for file in tmp_path.iterdir():
        with Image.open(file) as picture:
            assert min(picture.size) > 400


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A model whose classes are those of the images below, in another order."""
    torch.manual_seed(0)
    model = create_model("skvit-nano-patch4-32", id2label={0: "dog", 1: "bird", 2: "cat"})
    return export(model, fresh_image_processor(model.config), tmp_path_factory.mktemp("models") / "model")


def evaluate(*options, processes=1):
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [sys.executable, *launcher, SCRIPT, *map(str, options)],
        capture_output=True, text=True, timeout=600, env={**os.environ, "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip


def test_script(repo, tmp_path):
    images = write_images(tmp_path / "images", classes=("cat", "dog"), images=21)
    options = ["--model", repo, "--dataset", images, "--split", "train", "--per_device_eval_batch_size", 4]
    records = []
    for processes in (1, 2):
        folder = tmp_path / f"evaluation{processes}"
        done = evaluate(*options, "--output_dir", folder, processes=processes)
        assert done.returncode == 0, done.stderr
        records.append(json.loads((folder / "evaluation.json").read_text()))
        assert {file.name for file in folder.iterdir()} == {"evaluation.json", "confusion.png", "reliability.png"}
    one, two = records
    assert one["images"] == two["images"] == 33  # of 42, a fifth held out; the last batches are uneven
    for figure in ("top1", "top5", "loss", "calibration_error", "per_class"):
        assert one[figure] == pytest.approx(two[figure], rel=1e-5)

    from transformers import pipeline

    classify = pipeline("image-classification", model=str(repo))
    from sk_transformers.training.batches import decode
    from sk_transformers.training.sources import load_image_data

    data = load_image_data(str(images))
    pairs = [(classify(decode(row["image"]))[0]["label"], data.labels[row["label"]]) for row in data.train]
    assert one["top1"] == pytest.approx(sum(predicted == label for predicted, label in pairs) / len(pairs))


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("digits", "the data has class '0', which the model does not: it knows dog, bird, cat."),
        ("nowhere/nothing", "--dataset nowhere/nothing is no folder here"),
    ],
)
def test_wrong_data(repo, tmp_path, dataset, sentence):
    args = SimpleNamespace(
        model=str(repo), dataset=dataset, output_dir=tmp_path / "out", mixed_precision="no", train_val_split=0.2,
        split_seed=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match=sentence):
        evaluate_model(args)
    assert not (tmp_path / "out").exists()
