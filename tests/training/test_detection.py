"""Detectors train with the loop of classifiers: they resume exactly, keep what they know, and each recipe runs."""

import json
from unittest import mock

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sk_transformers.cli.train_detection import main
from sk_transformers.data.options import AugmentationOptions, DataOptions
from sk_transformers.evaluation.options import EvaluationOptions
from sk_transformers.evaluation.run import evaluate_model
from sk_transformers.pretrained import load_classifier, load_detector, load_detector_to_train
from sk_transformers.recipes import recipes
from sk_transformers.training.command_line import TRAIN_DETECTION, build_parser, parse_options
from sk_transformers.training.loop import train
from sk_transformers.training.options import ModelOptions, TrainOptions

from ..support.object_files import CLASSES, objects_table, write_objects, write_voc
from ..support.training import dying_at, metrics_of, reset_states

SMALL = ["--config_overrides", "depths=[1, 1, 1, 1]", "detection_hidden_size=16"]
RECIPES = [
    name for name, file in recipes().items() if yaml.safe_load(file.read_text()).get("problem_type") == "detection"
]


def detect(*options):
    """Train in this process, and return the run's folder."""
    reset_states()
    torch.set_num_threads(1)
    return train(parse_options([*map(str, options)], TRAIN_DETECTION))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_objects(tmp_path_factory.mktemp("objects"), counts={"train": 8, "val": 3})


@pytest.fixture(scope="module")
def options(data):
    return [
        "--model", "skaformer-nano", "--dataset", data, "--image_size", "48x64", *SMALL, "--num_train_epochs", 2,
        "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2, "--ema_decay", 0.8,
        "--color_jitter", 0.3, "--learning_rate", 2e-3, "--warmup_steps", 1, "--checkpointing_steps", 1,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(options, tmp_path_factory):
    return detect(*options, "--output_dir", tmp_path_factory.mktemp("runs") / "whole")


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_not_stopped(options, run, tmp_path):
    with dying_at(3):
        detect(*options, "--output_dir", tmp_path / "stopped")
    resumed = detect(*options, "--output_dir", tmp_path / "stopped", "--resume_from_checkpoint", "latest")
    history = metrics_of(resumed)["history"]
    assert history == metrics_of(run)["history"] and history[-1]["train_loss"] < history[0]["train_loss"]
    weights, expected = (load_file(folder / "model" / "model.safetensors") for folder in (resumed, run))
    assert weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_what_a_run_leaves(data, run, tmp_path):
    best = metrics_of(run)["best"]
    assert 0 <= best["mask_ap"] <= best["mask_ap50"] <= 1 and 0 <= best["box_ap"] <= best["box_ap50"] <= 1
    card = (run / "model" / "README.md").read_text()
    assert "pipeline_tag: object-detection" in card and "its box AP is" in card and "2 of them: square, bar" in card
    model, processor = load_detector(str(run / "model"))
    assert dict(processor.size) == {"max_height": 48, "max_width": 64} and model.config.detection_masks
    with pytest.raises(ValueError, match="is a detector, expected a classifier"):
        load_classifier(str(run / "model"))
    of_data = DataOptions(str(data), problem_type="detection")
    folder, figures = evaluate_model(EvaluationOptions(str(run / "model"), output_dir=str(tmp_path / "out")), of_data)
    assert figures["box_ap"] == pytest.approx(best["box_ap"], abs=1e-6)
    assert figures["mask_ap"] == pytest.approx(best["mask_ap"], abs=1e-6)
    assert (folder / "classes.png").stat().st_size > 5000
    pictures = [one / "pictures" / "predictions.png" for one in (run, folder)]
    assert pictures[0].read_bytes() == pictures[1].read_bytes() and not [*(run / "model").rglob("predictions.png")]
    assert json.loads((folder / "evaluation.json").read_text())["per_class"]["bar"]["objects"] == 3


@pytest.mark.slow
def test_what_a_detector_starts_from(run):
    """Classes that it knows by name keep their weights, in any order; no object keeps its own."""
    model, processor = load_detector_to_train(str(run / "model"), {0: "bar", 1: "tree", 2: "square"})
    first, _ = load_detector(str(run / "model"))
    heads, known = (one.mask_rcnn.roi_heads for one in (model, first))
    outputs = {"box_predictor.cls_score": 1, "box_predictor.bbox_pred": 4, "mask_predictor.mask_fcn_logits": 1}
    for name, of_a_class in outputs.items():
        own, old = (head.get_submodule(name).weight.unflatten(0, (-1, of_a_class)) for head in (heads, known))
        assert torch.equal(own[[0, 3, 1]], old) and not torch.equal(own[2], old[1])
    assert model.config.id2label == {0: "bar", 1: "tree", 2: "square"}
    resized, processor = load_detector_to_train(str(run / "model"), dict(enumerate(CLASSES)), image_size=[32, 32])
    assert dict(processor.pad_size) == {"height": 32, "width": 32} and resized.config.image_size == [32, 32]
    windows = {"static_key_resolution": "window", "depths": [1, 1, 1, 1], "detection_hidden_size": 8}
    large, processor = load_detector_to_train("skaformer-nano", dict(enumerate(CLASSES)), image_size=512, **windows)
    assert dict(processor.pad_size) == {"height": 512, "width": 512} and large.config.image_size == 64


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_trains(recipe, data, tmp_path):
    done = detect(
        "--recipe", recipe, "--model", "skaformer-nano", "--dataset", data, "--image_size", 64, *SMALL,
        "--max_train_steps", 2, "--per_device_train_batch_size", 2, "--num_workers", 0,
        "--output_dir", tmp_path / "run",
    )  # fmt: skip
    assert metrics_of(done)["best"]["step"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("source", ["voc", "columns"])
def test_other_sources(source, tmp_path):
    counts = {"train": 4, "val": 2}
    if source == "voc":
        data, own = write_voc(tmp_path / source, counts), {}
    else:
        (data := tmp_path / source).mkdir()
        for seed, (split, count) in enumerate(counts.items()):
            objects_table(count, seed, box_format="xyxy").to_parquet(str(data / f"{split}.parquet"))
        own = {"box_format": "xyxy"}
    done = detect(
        "--model", "skaformer-nano", "--dataset", data, "--box_only", *(f"--{one}={own[one]}" for one in own), *SMALL,
        "--image_size", 64, "--max_train_steps", 2, "--per_device_train_batch_size", 2, "--num_workers", 0,
        "--output_dir", tmp_path / "run",
    )  # fmt: skip
    model, _ = load_detector(str(done / "model"))
    assert not model.config.detection_masks and sorted(model.config.label2id) == sorted(CLASSES)
    of_data = DataOptions(str(data), problem_type="detection", box_only=True, **own)
    _, figures = evaluate_model(EvaluationOptions(str(done / "model"), output_dir=str(tmp_path / "out")), of_data)
    assert figures["box_ap"] == pytest.approx(metrics_of(done)["best"]["box_ap"], abs=1e-6)
    assert figures["images"] == 2 and {one["objects"] for one in figures["per_class"].values()} == {2}


def test_its_options(capsys):
    data = DataOptions("images", problem_type="detection")
    with pytest.raises(ValueError, match="--mixup does not go with --problem_type detection: leave it out"):
        TrainOptions(ModelOptions("skaformer-nano"), data, augmentation=AugmentationOptions(mixup=0.2))
    text = build_parser(TRAIN_DETECTION).format_help()
    assert all(f"--{name} " in text for name in ("classes", "label_column", "box_format")) and "--box_only" in text
    assert "--mixup " not in text and "--reduce_labels" not in text
    with pytest.raises(ValueError, match="its family has no AutoModelForObjectDetection"):
        load_detector_to_train("skvit-nano-patch4-32", {0: "a"})
    with mock.patch("sys.argv", ["train-detection"]), pytest.raises(SystemExit, match="--model is missing"):
        main()
