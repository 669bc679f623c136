"""Segmenters train with the loop of classifiers: they learn, resume exactly, and open elsewhere."""

from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from sk_transformers import list_models
from sk_transformers.cli.train_segmentation import main
from sk_transformers.data.options import AugmentationOptions, DataOptions
from sk_transformers.pretrained import load_segmenter, load_segmenter_to_train
from sk_transformers.recipes import recipes
from sk_transformers.training.command_line import TRAIN_SEGMENTATION, build_parser, parse_options
from sk_transformers.training.loop import train
from sk_transformers.training.options import ModelOptions, OptimizationOptions, StreamingOptions, TrainOptions

from ..hub.test_export import load_elsewhere
from ..support.mask_files import CLASSES, write_pairs
from ..support.training import SCRIPTS, dying_at, launch, metrics_of, reset_states

SMALL = ["--config_overrides", "depths=[1, 1, 1, 1]", "segmentation_hidden_size=16"]
SEGMENTATION_RECIPES = [
    name for name, file in recipes().items() if yaml.safe_load(file.read_text()).get("problem_type") == "segmentation"
]


def segment(*options):
    """Train in this process, and return the run's folder."""
    reset_states()
    torch.set_num_threads(1)
    return train(parse_options([*map(str, options)], TRAIN_SEGMENTATION))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), counts=(("train", 24), ("val", 5)))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A network that has learned to tell a square from the ground."""
    return segment(
        "--model", "skaformer-nano", "--dataset", data, "--classes", *CLASSES, "--image_size", "48x64", *SMALL,
        "--num_train_epochs", 8, "--learning_rate", 4e-3, "--warmup_steps", 4, "--scale_jitter", 0.8, 1.25,
        "--output_dir", tmp_path_factory.mktemp("runs") / "squares",
    )  # fmt: skip


@pytest.mark.slow
def test_it_learns(run):
    best = metrics_of(run)["best"]
    assert best["mean_iou"] > 0.8 and best["pixel_accuracy"] > 0.9
    assert max(Image.open(run / "pictures" / "predictions.png").size) <= 4096
    assert not [*(run / "model").rglob("predictions.png")]
    card = (run / "model" / "README.md").read_text()
    assert "predictions.png" not in card
    assert (
        "pipeline_tag: image-segmentation" in card and "name: Mean IoU" in card and "type: image-segmentation" in card
    )
    assert "2 of them: ground, square" in card


@pytest.mark.slow
def test_it_is_a_pipeline_where_this_package_is_not_installed(run, tmp_path):
    report, tensors = load_elsewhere(run / "model", tmp_path / "work", "load_segmenter.py")
    assert report["labels"] and set(report["labels"]) <= set(CLASSES)
    model, processor = load_segmenter(str(run / "model"))
    assert processor.size == {"height": 48, "width": 64}
    with torch.no_grad():
        torch.testing.assert_close(tensors["logits"], model.eval()(tensors["pixel_values"]).logits)


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_not_stopped(data, tmp_path):
    options = [
        "--model", "cskvit-nano-patch4-32", "--dataset", data, "--classes", *CLASSES, "--image_size", 32,
        "--config_overrides", "num_hidden_layers=2", "segmentation_hidden_size=8", "--num_train_epochs", 2,
        "--per_device_train_batch_size", 4, "--gradient_accumulation_steps", 2, "--ema_decay", 0.8,
        "--color_jitter", 0.3, "--layer_decay", 0.8, "--checkpointing_steps", 2,
    ]  # fmt: skip
    whole = segment(*options, "--output_dir", tmp_path / "whole")
    with dying_at(5):
        segment(*options, "--output_dir", tmp_path / "stopped")
    resumed = segment(*options, "--output_dir", tmp_path / "stopped", "--resume_from_checkpoint", "latest")
    assert metrics_of(resumed)["history"] == metrics_of(whole)["history"]
    weights, expected = (load_file(folder / "model" / "model.safetensors") for folder in (resumed, whole))
    assert weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_two_processes_train(data, tmp_path):
    done = launch(
        "--model", "skaformer-nano", "--dataset", data, "--classes", *CLASSES, "--image_size", 32, *SMALL,
        "--max_train_steps", 2, "--per_device_train_batch_size", 2, "--output_dir", tmp_path / "run",
        program=[SCRIPTS / "train_segmentation.py"], processes=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 <= metrics_of(tmp_path / "run")["best"]["mean_iou"] <= 1


@pytest.mark.slow
def test_what_a_segmenter_starts_from(run, tmp_path):
    """A classifier gives the network below the head; a segmenter its classes' weights, too, in any order."""
    model, processor = load_segmenter_to_train(str(run / "model"), {0: "square", 1: "tree", 2: "ground"})
    first, _ = load_segmenter(str(run / "model"))
    for head in ("decode_head", "auxiliary_head"):
        own, known = (getattr(one.upernet, head).classifier.weight for one in (model, first))
        assert torch.equal(own[[2, 0]], known) and not torch.equal(own[1], known[0])
    assert model.config.id2label == {0: "square", 1: "tree", 2: "ground"}
    assert processor.size == {"height": 48, "width": 64}
    resized, processor = load_segmenter_to_train(str(run / "model"), first.config.id2label, image_size=[32, 32])
    assert processor.size == {"height": 32, "width": 32} and resized.config.image_size == [32, 32]


def test_windows_keep_the_size_of_the_keys():
    """The image size is that of the images alone, as a detector has it."""
    windows = {"static_key_resolution": "window", "segmentation_hidden_size": 8}
    model, processor = load_segmenter_to_train("skaformer-nano", {0: "a", 1: "b"}, image_size=[96, 128], **windows)
    assert processor.size == {"height": 96, "width": 128} and model.config.image_size == 64


def test_a_family_without_a_segmenter_is_named():
    with pytest.raises(ValueError, match="--model skcait.*: its family has no AutoModelForSemanticSegmentation"):
        load_segmenter_to_train(list_models("skcait*")[0], {0: "a", 1: "b"})


def write_stand_in(recipe, folder):
    """Data of the recipe's classes in the layout that it is for."""
    settings = yaml.safe_load(recipes()[recipe].read_text())
    split = ("training", "validation") if recipe == "ade20k" else ("train", "val")
    rng = np.random.default_rng(0)
    for name in split:
        for number in range(4):
            mask = rng.integers(0, len(settings["classes"]) + 1, (64, 48), dtype=np.uint8)  # one more: of no class
            image = rng.integers(0, 255, (64, 48, 3), dtype=np.uint8)
            for kind, array, ending in (("images", image, "jpg"), ("annotations", mask, "png")):
                file = folder / kind / name / f"{number}.{ending}"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(file)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SEGMENTATION_RECIPES)
def test_each_recipe_trains(recipe, tmp_path):
    data = write_stand_in(recipe, tmp_path / "data")
    run = segment(
        "--recipe", recipe, "--model", "skaformer-nano", "--dataset", data, "--image_size", 32, *SMALL,
        "--max_train_steps", 2, "--per_device_train_batch_size", 2, "--num_workers", 0,
        "--output_dir", tmp_path / "run",
    )  # fmt: skip
    assert metrics_of(run)["best"]["step"] >= 1


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("mixup", {"augmentation": AugmentationOptions(mixup=0.2)}),
        ("crop_scale", {"augmentation": AugmentationOptions(crop_scale=[0.5, 1])}),
        ("class_weights", {"optimization": OptimizationOptions(class_weights="balanced")}),
        ("streaming", {"streaming": StreamingOptions(streaming=True)}),
    ],
)
def test_what_is_for_classes_of_images_is_refused(name, groups):
    data = DataOptions("images", problem_type="segmentation")
    with pytest.raises(ValueError, match=f"--{name} does not go with --problem_type segmentation: leave it out"):
        TrainOptions(ModelOptions("skaformer-nano"), data, **groups)


def test_what_is_for_masks_is_refused():
    model = ModelOptions("skaformer-nano")
    with pytest.raises(ValueError, match="--scale_jitter does not go with --problem_type single_label"):
        TrainOptions(model, DataOptions("images"), augmentation=AugmentationOptions(scale_jitter=[1, 1]))
    optimization = OptimizationOptions(per_device_train_batch_size=1)
    with pytest.raises(ValueError, match="--per_device_train_batch_size is 1, expected at least 2"):
        TrainOptions(model, DataOptions("images", problem_type="segmentation"), optimization=optimization)


def test_its_help_leaves_out_what_it_does_not_take(capsys):
    text = build_parser(TRAIN_SEGMENTATION).format_help()
    assert "--scale_jitter" in text and "--mixup " not in text and "--problem_type" not in text
    assert "per_device_eval_batch_size PER_DEVICE_EVAL_BATCH_SIZE (default: 8)" in " ".join(text.split())
    with mock.patch("sys.argv", ["train-segmentation"]), pytest.raises(SystemExit, match="--model is missing"):
        main()
