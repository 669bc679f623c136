"""Runs with several labels an image, from a table to the exported folder."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from transformers import AutoModelForImageClassification, pipeline

from sk_transformers import create_model
from sk_transformers.data.balance import positive_weights
from sk_transformers.data.options import AugmentationOptions, DataOptions
from sk_transformers.evaluation.options import EvaluationOptions, PredictionOptions
from sk_transformers.evaluation.predict_files import predict_files
from sk_transformers.evaluation.run import evaluate_model
from sk_transformers.hub.cards.completion import complete_card, evaluation_of
from sk_transformers.hub.preflight import check_files, repo_files
from sk_transformers.training.checkpoints import STATE, read_state
from sk_transformers.training.objective import Objective, binary_cross_entropy
from sk_transformers.training.options import (
    DistillationOptions,
    ModelOptions,
    OptimizationOptions,
    TrainOptions,
)

from ..support.training import assert_same_runs, finetune, metrics_of

SHAPES = {"bar": "blue", "disc": "red", "frame": "green"}


def draw_images(folder, images=160):
    """Images of some shapes out of three, or of none, each in a quarter of its own, and a table that tells which."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = ["file_name,label"]
    for number in range(images):
        image = Image.new("RGB", (32, 32), "white")
        draw = ImageDraw.Draw(image)
        shown = [name for name in SHAPES if rng.random() < 0.4]
        for name, quarter in zip(shown, rng.permutation(4).tolist()):
            x, y = (rng.integers(0, 5, 2) + [16 * (quarter % 2), 16 * (quarter // 2)]).tolist()
            box, color = (x, y, x + 11, y + 11), SHAPES[name]
            if name == "bar":
                draw.rectangle((x, y, x + 11, y + 4), fill=color)
            elif name == "disc":
                draw.ellipse(box, fill=color)
            else:
                draw.rectangle(box, outline=color, width=3)
        image.save(folder / f"{number}.png")
        rows.append(f"{number}.png,{'|'.join(shown)}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The drawn images, options of a run on them, and the run."""
    folder = tmp_path_factory.mktemp("shapes")
    options = [
        "--model", "skvit-nano-patch4-32", "--dataset", draw_images(folder / "images"), "--problem_type", "multi_label",
        "--config_overrides", "num_hidden_layers=2", "--per_device_train_batch_size", 8, "--learning_rate", 1e-3,
        "--crop_scale", 1, 1, "--weight_decay", 0, "--ema_decay", 0.8,
    ]  # fmt: skip
    return options, finetune(*options, "--num_train_epochs", 12, "--output_dir", folder / "run")


def labels_of(run):
    """Return the names of the classes, the held-out files and the targets of these, read apart from the package."""
    images = run.parent / "images"
    table = dict(row.split(",") for row in (images / "labels.csv").read_text().splitlines()[1:])
    return sorted(SHAPES), images, {file: labels.split("|") if labels else [] for file, labels in table.items()}


@pytest.mark.slow
def test_a_run_learns_several_labels(trained):
    _, run = trained
    metrics = metrics_of(run)
    assert metrics["best_metric"] == "mean_average_precision"
    last = metrics["history"][-1]
    assert last["ema_mean_average_precision"] > 0.95 and last["ema_macro_f1"] > 0.85
    history = [entry["ema_mean_average_precision"] for entry in metrics["history"]]
    assert metrics["best"]["mean_average_precision"] == max(history)
    assert metrics["best"]["step"] == metrics["history"][history.index(max(history))]["step"]
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"


@pytest.mark.slow
def test_an_exported_folder_answers_with_a_sigmoid_of_each_class(trained, tmp_path, monkeypatch):
    _, run = trained
    names, images, labels = labels_of(run)
    model = AutoModelForImageClassification.from_pretrained(run / "model")
    classify = pipeline("image-classification", model=str(run / "model"))
    files = sorted(labels)[:20]
    monkeypatch.syspath_prepend(run / "model")
    monkeypatch.delitem(sys.modules, "handler", raising=False)
    from handler import EndpointHandler

    handler = EndpointHandler(str(run / "model"))
    predict_files(str(run / "model"), [str(images / file) for file in files], str(tmp_path / "t.jsonl"),
                  PredictionOptions(top_k=3))  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    for file, row in zip(files, rows):
        pixels = classify.image_processor(Image.open(images / file), return_tensors="pt").pixel_values
        with torch.no_grad():
            expected = dict(zip(names, model(pixels).logits[0].sigmoid().tolist()))
        with Image.open(images / file) as image:
            answers = [classify(str(images / file)), handler({"inputs": image})]
        answers.append([{"label": row[f"label_{n}"], "score": row[f"score_{n}"]} for n in (1, 2, 3)])
        for answer in answers:
            assert {one["label"]: one["score"] for one in answer} == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_an_evaluation_and_the_card_that_shows_it(trained, tmp_path):
    _, run = trained
    names, images, labels = labels_of(run)
    options = EvaluationOptions(str(run / "model"), "all", output_dir=str(tmp_path / "evaluation"))
    data = DataOptions(str(images), problem_type="multi_label")
    folder, figures = evaluate_model(options, data)
    assert {file.name for file in folder.iterdir()} == {"evaluation.json", "classes.png", "reliability.png"}
    classify = pipeline("image-classification", model=str(run / "model"))
    scores = [{answer["label"]: answer["score"] for answer in classify(str(images / file))} for file in labels]
    truth = [[name in shown for name in names] for shown in labels.values()]
    expected = average_precision_score(truth, [[score[name] for name in names] for score in scores])
    assert figures["images"] == 160 and figures["mean_average_precision"] == pytest.approx(expected, abs=1e-4)

    best = metrics_of(run)["best"]["mean_average_precision"]
    card = (run / "model" / "README.md").read_text()
    assert f"its mean average precision is {best:.4f}" in card
    assert "whether an image shows it, 3 of them: bar, disc, frame." in card and "classifies" not in card
    for kind in ("mean_average_precision", "f1"):
        assert f"- type: {kind}\n" in card and f"- {kind}\n" in card
    check_files(run / "model", repo_files(run / "model"))
    card = complete_card(run / "model", "org/shapes", None, {}, [evaluation_of(folder)], [])
    header = "| data | images | mean average precision | micro F1 | macro F1 | exact match | loss | calibration error |"
    row = card[card.index(header) :].splitlines()[2].split(" | ")
    assert row[:3] == ["| images, all", "160", f"{expected:.4f}"]
    assert "Figures of the classes" in card and "name: Exact match, evaluated" in card

    with pytest.raises(ValueError, match="was trained with --problem_type multi_label, and the data is single_label"):
        evaluate_model(EvaluationOptions(str(run / "model"), output_dir=str(tmp_path / "other")), DataOptions("digits"))
    with pytest.raises(ValueError, match="--corruptions measures top-1 accuracy, which --problem_type multi_label"):
        evaluate_model(EvaluationOptions(str(run / "model"), corruptions=[], output_dir=str(tmp_path / "other")), data)


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly(trained, tmp_path):
    options, _ = trained
    quick = [*options, "--num_train_epochs", 2, "--max_train_samples", 64, "--class_weights", "balanced",
             "--checkpoints_total_limit", 2]  # fmt: skip
    whole = finetune(*quick, "--output_dir", tmp_path / "whole")
    resume = ["--output_dir", tmp_path / "resumed", "--resume_from_checkpoint", whole / "checkpoint-0000008"]
    assert_same_runs(finetune(*quick, *resume), whole, step=16)
    with pytest.raises(ValueError, match="made with other data: --problem_type was multi_label, and is single_label"):
        finetune("--model", "skvit-nano-patch4-32", "--dataset", "digits", "--output_dir", tmp_path / "x", *resume[2:])


@pytest.mark.slow
def test_one_label_after_several(trained, tmp_path):
    """The head of a network keeps the classes that it knows by name, and is asked for one of them from now on."""
    _, run = trained
    for name in ("bar", "disc"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            shutil.copy(run.parent / "images" / f"{number}.png", tmp_path / "images" / name / f"{number}.png")
    other = finetune("--model", run / "model", "--dataset", tmp_path / "images", "--max_train_steps", 1,
                     "--per_device_train_batch_size", 4, "--learning_rate", 1e-12, "--warmup_steps", 0,
                     "--output_dir", tmp_path / "run")  # fmt: skip
    config = json.loads((other / "model" / "config.json").read_text())
    assert config["problem_type"] == "single_label_classification"
    before, after = (load_file(one / "model" / "model.safetensors")["classifier.weight"] for one in (run, other))
    torch.testing.assert_close(after, before[:2])
    scores = pipeline("image-classification", model=str(other / "model"))(str(tmp_path / "images/bar/0.png"))
    assert sum(answer["score"] for answer in scores) == pytest.approx(1, abs=1e-5)


def test_the_loss_is_the_models_own():
    model = create_model("skvit-nano-patch4-32", num_labels=4, problem_type="multi_label_classification").eval()
    images, targets = torch.randn(5, 3, 32, 32), (torch.rand(5, 4) < 0.5).float()
    own = model(pixel_values=images, labels=targets)
    loss = Objective(binary_cross_entropy)(model, images, targets, mix=False)
    assert loss.item() == pytest.approx(own.loss.item(), rel=1e-6)


def test_weights_of_classes_weigh_the_images_that_have_them():
    weights = positive_weights([10, 60, 0], 100)
    assert weights.tolist() == pytest.approx([9, 40 / 60, 1])
    logits, targets = torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    loss = binary_cross_entropy(logits, targets, weights, 0.0)
    minus_logs = -torch.stack([weights[0] * logits[0, 0].sigmoid().log(), (1 - logits[0, 1].sigmoid()).log(),
                               torch.tensor(0.5).log()])  # fmt: skip
    assert loss.item() == pytest.approx(minus_logs.mean().item())


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("mixup", {"augmentation": AugmentationOptions(mixup=0.2)}),
        ("cutmix", {"augmentation": AugmentationOptions(cutmix=1.0)}),
        ("label_smoothing", {"optimization": OptimizationOptions(label_smoothing=0.1)}),
        ("balanced_sampling", {"optimization": OptimizationOptions(balanced_sampling=True)}),
        ("teacher", {"distillation": DistillationOptions(teacher="org/teacher")}),
    ],
)
def test_what_is_for_one_label_is_refused(name, groups):
    data = DataOptions("images", problem_type="multi_label")
    with pytest.raises(ValueError, match=f"--{name} does not go with --problem_type multi_label: leave it out"):
        TrainOptions(ModelOptions("skvit-nano-patch4-32"), data, **groups)


def test_a_checkpoint_of_an_older_version_is_read(tmp_path):
    (tmp_path / STATE).write_text(json.dumps({"step": 6, "best_top1": 0.5, "best_step": 6, "history": []}))
    state = read_state(tmp_path)
    assert (state.best_metric, state.best_score, state.best_step) == ("top1", 0.5, 6)
    state.step = 12
    state.add_evaluation({"step": 12, "top1": 0.4, "ema_top1": 0.6})
    assert (state.best_score, state.best_step) == (0.6, 12)
