"""Figures of an evaluation against a second calculation, and the script as a user runs it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torchmetrics.functional.classification import multiclass_calibration_error

from sk_transformers import create_model
from sk_transformers.data.options import DataOptions
from sk_transformers.evaluation.metrics import class_scores
from sk_transformers.evaluation.options import EvaluationOptions
from sk_transformers.evaluation.plots import plot_confusion, plot_reliability
from sk_transformers.evaluation.predictions import map_labels, predict
from sk_transformers.evaluation.run import evaluate_model
from sk_transformers.evaluation.single_label import (
    SINGLE_LABEL,
    SingleLabelPredictions,
    accuracy,
    reduce_logits,
    summarize,
)
from sk_transformers.hub import export
from sk_transformers.image_processing import image_processor_for
from sk_transformers.pretrained import load_model

from ..support.image_files import load_images, write_images

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate_model.py"
LABELS = ["ant", "bee", "cicada", "dragonfly", "earwig", "fly"]


@pytest.fixture
def logits_and_labels():
    labels = torch.randint(0, 5, (500,))  # there is no fly
    logits = torch.randn(500, 6)
    logits[torch.arange(500), labels] += 1.5
    return logits, labels


def test_figures(logits_and_labels):
    logits, labels = logits_and_labels
    figures = summarize(
        SingleLabelPredictions(**reduce_logits(logits, labels), seconds=2.0, measured_images=400), LABELS
    )
    rows = list(zip(logits.double(), labels.tolist()))
    ranks = [sorted(range(6), key=lambda index: -logits[index].item()) for logits, _ in rows]
    right = [ranked[0] == label for ranked, (_, label) in zip(ranks, rows)]
    assert (figures["images"], figures["unreadable"]) == (500, 0)
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
    probabilities = logits.softmax(-1)
    torchmetrics_error = multiclass_calibration_error(probabilities, labels, num_classes=6, n_bins=15, norm="l1")
    assert figures["calibration_error"] == pytest.approx(torchmetrics_error.item(), abs=1e-6)


class Echo(torch.nn.Module):
    """A classifier whose logits are its input; in training mode it is wrong."""

    def forward(self, pixel_values):
        return SimpleNamespace(logits=-pixel_values if self.training else pixel_values)


def batches(logits, labels, size=64):
    parts = zip(logits.split(size), labels.split(size))
    return [{"pixel_values": part, "labels": part_labels} for part, part_labels in parts]


@pytest.mark.parametrize("label_map", [None, torch.tensor([3, 0, 2, 1, 4, 5])])
def test_unreadable_images_count_in_no_figure(logits_and_labels, label_map):
    logits, labels = logits_and_labels
    bad = torch.rand(500) < 0.1
    with_bad = predict(
        Accelerator(cpu=True), Echo(), batches(logits, labels.where(~bad, -100)), SINGLE_LABEL, label_map
    )
    without = predict(Accelerator(cpu=True), Echo(), batches(logits[~bad], labels[~bad]), SINGLE_LABEL, label_map)
    assert with_bad.labels.tolist() == [y if label_map is None else label_map[y] for y in labels[~bad].tolist()]
    figures, expected = summarize(with_bad, LABELS), summarize(without, LABELS)
    assert (figures.pop("unreadable"), expected.pop("unreadable")) == (bad.sum(), 0)
    for record in (figures, expected):
        del record["images_per_second"]
    assert figures == expected
    assert figures["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits[~bad], with_bad.labels).item())


def test_nothing_to_measure(logits_and_labels):
    logits, labels = logits_and_labels
    with pytest.raises(ValueError, match="none of the 500 images could be read"):
        predict(Accelerator(cpu=True), Echo(), batches(logits, torch.full_like(labels, -100)), SINGLE_LABEL)


def test_labels_are_matched_by_name():
    assert map_labels(["fly", "ant"], LABELS).tolist() == [5, 0]
    with pytest.raises(ValueError, match=r"the data has class 'moth', which the model does not: it knows ant, bee"):
        map_labels(["ant", "moth"], LABELS)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [6, 30, 100, 21841])
def test_plots_are_written(logits_and_labels, tmp_path, classes):
    logits, labels = logits_and_labels
    logits = torch.cat([logits, torch.randn(500, classes - 6)], dim=1)
    predictions = SingleLabelPredictions(**reduce_logits(logits, labels), seconds=2.0, measured_images=400)
    plot_confusion(predictions, [f"class {i}" for i in range(classes)], tmp_path / "confusion.png")
    plot_reliability(predictions.confidence, predictions.correct, 0.1, tmp_path / "reliability.png")
    for file in tmp_path.iterdir():
        with Image.open(file) as picture:
            assert min(picture.size) > 400


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A model whose classes are those of the images below, in another order, and that takes noise for any of them."""
    torch.manual_seed(0)
    model = create_model("skvit-nano-patch4-32", id2label={0: "dog", 1: "bird", 2: "cat"}).eval()
    with torch.no_grad():
        model.classifier.bias -= model(pixel_values=torch.rand(64, 3, 32, 32) * 2 - 1).logits.mean(0)
    return export(model, image_processor_for(model.config.image_size), tmp_path_factory.mktemp("models") / "model")


def evaluate(*options, processes=1):
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [sys.executable, *launcher, SCRIPT, *map(str, options)],
        capture_output=True, text=True, timeout=600, env={**os.environ, "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip


def test_another_image_size_measures_the_resized_network(repo, tmp_path):
    images = write_images(tmp_path / "images", classes=("cat", "dog"), images=8)
    data = DataOptions(dataset=str(images))
    resized = export(*load_model(str(repo), {0: "dog", 1: "bird", 2: "cat"}, image_size=48), tmp_path / "resized")
    records = []
    for options in ({"model": str(repo), "image_size": 48}, {"model": str(resized)}):
        folder, _ = evaluate_model(EvaluationOptions(**options, split="all", output_dir=str(tmp_path / "e")), data)
        records.append(json.loads((folder / "evaluation.json").read_text()))
        shutil.rmtree(folder)
    assert records[0]["image_size"] == [48, 48] and "image_size" not in records[1]
    assert records[0]["loss"] == pytest.approx(records[1]["loss"], rel=1e-5)
    with pytest.raises(ValueError, match="--image_size resizes images that --sliding_window takes at their own size"):
        EvaluationOptions(model=str(repo), image_size=48, sliding_window=32)


@pytest.mark.slow
def test_script(repo, tmp_path):
    images = write_images(tmp_path / "images", classes=("cat", "dog"), images=21)
    options = ["--model", repo, "--dataset", images, "--split", "train", "--per_device_eval_batch_size", 4]
    options += ["--corruptions", "noise", "--severities", 2, 5]
    records = []
    for processes, baseline in ((1, []), (2, ["--baseline", tmp_path / "evaluation1" / "evaluation.json"])):
        folder = tmp_path / f"evaluation{processes}"
        done = evaluate(*options, *baseline, "--output_dir", folder, processes=processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("shot_noise") == 1  # the main process alone prints
        records.append(json.loads((folder / "evaluation.json").read_text()))
        assert {file.name for file in folder.iterdir()} == {
            "evaluation.json", "confusion.png", "reliability.png", "robustness.png",
        }  # fmt: skip
    one, two = records
    assert one["dataset_revision"] is None  # of a folder
    assert one["images"] == two["images"] == 33  # of 42, a fifth held out; the last batches are uneven
    for figure in ("top1", "balanced_accuracy", "macro_f1", "loss", "calibration_error", "per_class"):
        assert one[figure] == pytest.approx(two[figure], rel=1e-5)
    robustness = [record["robustness"] for record in records]
    assert list(robustness[0]["corruptions"]) == ["gaussian_noise", "shot_noise", "impulse_noise"]
    assert (robustness[0]["image_size"], robustness[0]["severities"]) == ([32, 32], [2, 5])
    tops = [[row["top1"] for row in part["corruptions"].values()] for part in robustness]
    assert tops[0] == tops[1] and len({value for values in tops[0] for value in values}) > 2
    assert robustness[1]["mce"] == 1  # the one process is the baseline

    from transformers import pipeline

    classify = pipeline("image-classification", model=str(repo))
    from sk_transformers.data.loaders import read_image

    data = load_images(images)
    pairs = [(classify(read_image(row["image"]))[0]["label"], data.labels[row["label"]]) for row in data.train]
    assert one["top1"] == pytest.approx(sum(predicted == label for predicted, label in pairs) / len(pairs))


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("digits", "the data has class '0', which the model does not: it knows dog, bird, cat."),
        ("nowhere/nothing", "--dataset nowhere/nothing is no folder here"),
    ],
)
def test_wrong_data(repo, tmp_path, dataset, sentence):
    options = EvaluationOptions(model=str(repo), output_dir=str(tmp_path / "out"))
    with pytest.raises(ValueError, match=sentence):
        evaluate_model(options, DataOptions(dataset))
    assert not (tmp_path / "out").exists()


# Classes of unlike sizes


def test_scores_of_classes_are_those_of_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score, f1_score

    rng = np.random.default_rng(0)
    labels = rng.choice(8, 300, p=[0.6, 0.2, 0.1, 0.05, 0.03, 0.02, 0, 0])
    predicted = np.where(rng.random(300) < 0.7, labels, rng.integers(0, 7, 300))
    scores = class_scores(torch.tensor(predicted), torch.tensor(labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class is predicted that there is not
        assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert scores["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))


@pytest.mark.parametrize(("classes", "shown"), [(2, False), (5, False), (6, True)])
def test_top5_is_of_more_than_five_classes(classes, shown):
    logits, labels = torch.randn(7, classes), torch.randint(classes, (7,))
    figures = accuracy(SingleLabelPredictions(**reduce_logits(logits, labels), seconds=0.0, measured_images=0))
    assert ("top5" in figures) == shown
    assert figures["top1"] == pytest.approx((logits.argmax(-1) == labels).float().mean().item())


def test_a_folder_with_one_class(repo, tmp_path, capsys):
    images = write_images(tmp_path / "images", classes=("cat",), images=10)
    for split, count in (("validation", 2), ("all", 10)):
        options = EvaluationOptions(str(repo), split, output_dir=str(tmp_path / split))
        _, figures = evaluate_model(options, DataOptions(str(images)))
        assert figures["images"] == count and list(figures["per_class"]) == ["cat"]
        assert "10 images of 1 class" in capsys.readouterr().err


def test_the_record_names_the_weights_and_the_split_as_the_data_does(repo, tmp_path):
    for split, images in (("train", 8), ("test", 4)):
        write_images(tmp_path / "images" / split, classes=("cat", "dog"), images=images // 2)
    options = EvaluationOptions(str(repo), output_dir=str(tmp_path / "evaluation"))
    folder, figures = evaluate_model(options, DataOptions(str(tmp_path / "images")))
    record = json.loads((folder / "evaluation.json").read_text())
    assert (record["split"], figures["images"]) == ("test", 4)
    assert record["weights_sha256"] == hashlib.sha256((repo / "model.safetensors").read_bytes()).hexdigest()
