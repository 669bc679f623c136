"""Figures of several labels an image, against scikit-learn's and by hand."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

from sk_transformers import create_model
from sk_transformers.data.options import DataOptions
from sk_transformers.evaluation.multi_label import MULTI_LABEL, MultiLabelPredictions, measure, reduce_logits, summarize
from sk_transformers.evaluation.onnx import run_export
from sk_transformers.evaluation.plots import plot_multi_label
from sk_transformers.evaluation.predictions import predict
from sk_transformers.evaluation.problems import choose_problem
from sk_transformers.hub import export
from sk_transformers.image_processing import image_processor_for

from ..support.image_files import write_images
from .test_evaluation import evaluate

NAMES = ["ant", "bee", "cicada", "dragonfly"]
# Six images; no image has a dragonfly, and none is said to have one.
LOGITS = torch.tensor([
    [2.0, -1.0, 0.5, -3.0], [1.0, 0.3, -0.5, -3.0], [-0.2, 2.0, -2.0, -1.0],
    [-1.0, 0.4, 1.5, -3.0], [0.1, -2.0, -1.0, -4.0], [-3.0, -0.1, 0.2, -2.0],
])  # fmt: skip
LABELS = torch.tensor([
    [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0],
]).float()  # fmt: skip


def predictions_of(logits, labels, label_map=None):
    return MultiLabelPredictions(**reduce_logits(logits, labels, label_map), seconds=2.0, measured_images=4)


def test_figures_of_six_images():
    figures = summarize(predictions_of(LOGITS, LABELS), NAMES)
    # ant is ranked 1, 1, 0, 1, 0, 0 by its scores, bee 1, 0, 1, 1, 0, 0 and cicada 1, 1, 0, 0, 0, 0
    precisions = [(1 + 1 + 3 / 4) / 3, (1 + 2 / 3 + 3 / 4) / 3, 1]
    assert figures["mean_average_precision"] == pytest.approx(sum(precisions) / 3)
    # above 0.5, right, and had: ant 3, 2, 3; bee 3, 2, 3; cicada 3, 2, 2
    assert figures["micro_f1"] == pytest.approx(2 * 6 / (9 + 8))
    scores = [2 * 2 / 6, 2 * 2 / 6, 2 * 2 / 5]
    assert figures["macro_f1"] == pytest.approx(sum(scores) / 3)
    assert figures["exact_match"] == pytest.approx(2 / 6)  # the first two
    assert (figures["images"], figures["unreadable"], figures["images_per_second"]) == (6, 0, 2)
    assert list(figures["per_class"]) == NAMES[:3]
    for name, images, precision, f1 in zip(NAMES, (3, 3, 2), precisions, scores):
        expected = {"images": images, "average_precision": precision, "f1": f1}
        assert figures["per_class"][name] == pytest.approx(expected)
    by_hand = [
        math.log1p(math.exp(-x if y else x)) for x, y in zip(LOGITS.flatten().tolist(), LABELS.flatten().tolist())
    ]
    assert figures["loss"] == pytest.approx(sum(by_hand) / 24)
    json.dumps(figures, allow_nan=False)


def random_answers(images=400, classes=7):
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(images, classes, generator=generator) < torch.linspace(0.02, 0.6, classes)).float()
    logits = 2 * torch.randn(images, classes, generator=generator) + 2 * labels - 1
    return logits, labels


def test_figures_are_those_of_scikit_learn():
    logits, labels = random_answers()
    figures = summarize(predictions_of(logits, labels), list("abcdefg"))
    truth, predicted = labels.numpy(), (logits > 0).numpy()
    assert figures["mean_average_precision"] == pytest.approx(average_precision_score(truth, logits.numpy()))
    for average in ("micro", "macro"):
        assert figures[f"{average}_f1"] == pytest.approx(f1_score(truth, predicted, average=average))
    by_class = average_precision_score(truth, logits.numpy(), average=None)
    assert [row["average_precision"] for row in figures["per_class"].values()] == pytest.approx(list(by_class))
    assert [row["f1"] for row in figures["per_class"].values()] == pytest.approx(
        list(f1_score(truth, predicted, average=None))
    )
    assert [row["images"] for row in figures["per_class"].values()] == labels.sum(0).int().tolist()
    assert figures["exact_match"] == pytest.approx((truth == predicted).all(1).mean())
    probabilities, error = logits.sigmoid().flatten().numpy(), 0.0
    for low in range(15):
        inside = (low / 15 < probabilities) & (probabilities <= (low + 1) / 15)
        error += abs((labels.flatten().numpy() - probabilities)[inside].sum()) / probabilities.size
    assert figures["calibration_error"] == pytest.approx(error, abs=1e-5)


def test_scores_that_round_to_one_are_still_in_order():
    logits = torch.tensor([[20.0, -1.0], [19.0, -1.0], [18.0, 1.0]])
    labels = torch.tensor([[1.0, 0], [0, 0], [0, 1]])
    assert measure(predictions_of(logits, labels))["mean_average_precision"] == 1


def test_classes_are_matched_and_unreadable_images_count_in_no_figure():
    logits, labels = random_answers(50)
    label_map = torch.tensor([5, 0, 3])  # the data's three classes among the model's seven
    bad = torch.arange(50) % 7 == 0
    given = labels[:, :3].where(~bad[:, None], -100.0)
    model = torch.nn.Identity()
    model.forward = lambda pixel_values: SimpleNamespace(logits=pixel_values)
    loader = [{"pixel_values": x, "labels": y} for x, y in zip(logits.split(16), given.split(16))]
    found = predict(Accelerator(cpu=True), model, loader, MULTI_LABEL, label_map)
    expected = torch.zeros(int((~bad).sum()), 7)
    expected[:, label_map] = labels[~bad][:, :3]
    assert torch.equal(found.labels, expected) and torch.equal(found.logits, logits[~bad])
    assert found.unreadable == bad.sum()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[~bad], expected)
    assert measure(found)["loss"] == pytest.approx(loss.item())
    assert MULTI_LABEL.names_of_labels(found, list("gfedcba"))[0] == "\t".join(
        sorted(name for name, has in zip("gfedcba", expected[0]) if has)
    )


def test_nothing_to_measure():
    with pytest.raises(ValueError, match="none of the 6 images has a label: there is nothing to measure"):
        measure(predictions_of(LOGITS, torch.zeros(6, 4)))


def test_a_model_of_the_other_problem_is_refused():
    several, one, unsaid = (
        SimpleNamespace(problem_type=kind) for kind in (MULTI_LABEL.config_type, "single_label_classification", None)
    )
    assert choose_problem("multi_label", "it", several) is MULTI_LABEL
    for config in (one, unsaid):
        assert choose_problem("single_label", "it", config) is not MULTI_LABEL
        with pytest.raises(ValueError, match="it was trained with --problem_type single_label, and the data is multi"):
            choose_problem("multi_label", "it", config)
    with pytest.raises(
        ValueError, match="it was trained with --problem_type multi_label, and the data is single_label"
    ):
        choose_problem("single_label", "it", several)


def test_the_check_of_an_export_is_refused():
    with pytest.raises(ValueError, match="--dataset: the check of an export counts right first answers"):
        run_export("model", "folder", data_options=DataOptions("images", problem_type="multi_label"))


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path):
    """Of 21 images in batches of four, which come out uneven."""
    torch.manual_seed(0)
    names = dict(enumerate(["cat", "bird", "dog"]))
    model = create_model("skvit-nano-patch4-32", id2label=names, problem_type=MULTI_LABEL.config_type)
    repo = export(model, image_processor_for(model.config.image_size), tmp_path / "model")
    images = write_images(tmp_path / "images", classes=("all",), images=21)
    labels = ["cat", "dog|cat", "", "dog"]
    rows = [f"{number}.png,{labels[number % 4]}" for number in range(21)]
    (images / "labels.csv").write_text("\n".join(["file_name,label", *rows]))
    options = ["--model", repo, "--dataset", images, "--problem_type", "multi_label", "--split", "all"]
    records = []
    for processes in (1, 2):
        folder = tmp_path / f"evaluation{processes}"
        done = evaluate(*options, "--per_device_eval_batch_size", 4, "--output_dir", folder, processes=processes)
        assert done.returncode == 0, done.stderr
        records.append(json.loads((folder / "evaluation.json").read_text()))
    one, two = records
    assert one["images"] == two["images"] == 21 and one["labels_sha256"] == two["labels_sha256"]
    assert list(one["per_class"]) == ["cat", "dog"] and one["per_class"]["cat"]["images"] == 11
    for figure in ("mean_average_precision", "micro_f1", "macro_f1", "exact_match", "loss", "calibration_error"):
        assert one[figure] == pytest.approx(two[figure], rel=1e-5)


@pytest.mark.parametrize("classes", [4, 60])
def test_plots_are_written(tmp_path, classes):
    labels = torch.from_numpy(np.random.default_rng(0).random((100, classes)) < 0.3).float()
    predictions = predictions_of(labels + torch.randn(100, classes), labels)
    names = [f"class {number}" for number in range(classes)]
    plot_multi_label(predictions, summarize(predictions, names), names, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"classes.png", "reliability.png"}
    for file in tmp_path.iterdir():
        with Image.open(file) as picture:
            assert min(picture.size) > 200
