"""`scripts/finetune.py`, run as a user runs it."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file
from sk_transformers.training.data import decode, load_image_data
from transformers import AutoModelForImageClassification, pipeline

from sk_transformers.training.arguments import parse_arguments
from sk_transformers.training.loop import evaluate, parameter_groups, train

from .test_data import write_images

SCRIPTS = Path(__file__).parents[2] / "scripts"
QUICK = ["--recipe", "digits", "--per_device_train_batch_size", "256", "--warmup_steps", "2"]


def finetune(*options):
    """Train in this process; the run's folder."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    torch.set_num_threads(1)
    return train(parse_arguments([*map(str, options)], SCRIPTS / "recipes"))


def launch(*options, processes=1):
    """Train as `accelerate launch` does, or with several processes on the processor as `torchrun` does."""
    launcher = ["accelerate.commands.launch"]
    if processes > 1:
        launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return subprocess.run(
        [sys.executable, "-m", *launcher, SCRIPTS / "finetune.py", *map(str, options)],
        capture_output=True, text=True, timeout=600, env={**os.environ, "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())


def test_a_run_leaves_everything(tmp_path):
    run = finetune(*QUICK, "--num_train_epochs", 3, "--output_dir", tmp_path / "run")
    metrics = metrics_of(run)
    assert [entry["step"] for entry in metrics["history"]] == [6, 12, 18]
    # Two steps of warm-up to 2e-3, then a cosine to a hundredth of it at step 18; an epoch ends with its sixth step.
    cosine = [0.505 + 0.495 * math.cos(math.pi * step / 18) for step in (5, 11, 17)]
    assert [entry["learning_rate"] for entry in metrics["history"]] == pytest.approx([2e-3 * part for part in cosine])
    assert metrics["history"][-1]["train_loss"] < metrics["history"][0]["train_loss"]
    assert metrics["data"]["labels"] == [str(i) for i in range(10)]
    kept = {f"checkpoint-{step:07d}" for step in (metrics["best"]["step"], 18)}
    assert {path.name for path in run.iterdir()} == {"metrics.json", "model", *kept}

    card = (run / "model" / "README.md").read_text()
    assert f"value: {round(metrics['best']['top1'], 4)}" in card and "no trained weights" not in card
    data = load_image_data("digits")
    image = decode(data.validation[0]["image"])
    answers = pipeline("image-classification", model=str(run / "model"))(image, top_k=3)
    assert {answer["label"] for answer in answers} <= set(data.labels)


def test_the_exported_model_has_the_reported_accuracy(tmp_path):
    run = finetune(*QUICK, "--num_train_epochs", 2, "--output_dir", tmp_path / "run")
    classify = pipeline("image-classification", model=str(run / "model"))
    data = load_image_data("digits")
    images = [decode(image) for image in data.validation["image"]]
    right = [
        answers[0]["label"] == data.labels[label]
        for answers, label in zip(classify(images, top_k=1, batch_size=64), data.validation["label"])
    ]
    assert sum(right) / len(right) == pytest.approx(metrics_of(run)["best"]["top1"])


def test_the_same_seed_gives_the_same_weights(tmp_path):
    runs = [
        finetune(*QUICK, "--max_train_steps", 3, "--seed", seed, "--output_dir", tmp_path / f"run{i}")
        for i, seed in enumerate((1, 1, 2))
    ]
    first, again, other = (load_file(run / "model" / "model.safetensors") for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    options = [*QUICK, "--num_train_epochs", 3]
    whole = finetune(*options, "--output_dir", tmp_path / "whole")

    from sk_transformers.training import loop

    def stop_after_two_epochs(accelerator, run, progress):
        save(accelerator, run, progress)
        if progress.step == 12:
            raise KeyboardInterrupt

    save = loop.save_checkpoint
    monkeypatch.setattr(loop, "save_checkpoint", stop_after_two_epochs)
    with pytest.raises(KeyboardInterrupt):
        finetune(*options, "--output_dir", tmp_path / "stopped")
    monkeypatch.setattr(loop, "save_checkpoint", save)
    resumed = finetune(*options, "--output_dir", tmp_path / "stopped", "--resume_from_checkpoint", "latest")

    assert metrics_of(resumed)["history"] == metrics_of(whole)["history"]
    last = "checkpoint-0000018/model.safetensors"
    weights, expected = load_file(resumed / last), load_file(whole / last)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_finished_run_goes_on_in_another_folder(tmp_path):
    first = finetune(*QUICK, "--num_train_epochs", 2, "--output_dir", tmp_path / "first")
    with pytest.raises(FileExistsError, match="first holds a finished run: choose another --output_dir"):
        finetune(*QUICK, "--num_train_epochs", 3, "--output_dir", first, "--resume_from_checkpoint", "latest")
    options = [*QUICK, "--num_train_epochs", 3, "--resume_from_checkpoint", first / "checkpoint-0000012"]
    # With a learning rate of next to nothing the best stays the first run's, unless it ties.
    second = finetune(*options, "--learning_rate", 1e-9, "--output_dir", tmp_path / "second")
    metrics = metrics_of(second)
    assert [entry["step"] for entry in metrics["history"]] == [6, 12, 18]
    best = second / f"checkpoint-{metrics['best']['step']:07d}" / "model.safetensors"
    weights, exported = load_file(best), load_file(second / "model" / "model.safetensors")
    assert all(torch.equal(weights[name], exported[name]) for name in exported)


def test_fine_tuning_replaces_the_head(tmp_path):
    first = finetune(*QUICK, "--max_train_steps", 2, "--output_dir", tmp_path / "digits")
    folder = write_images(tmp_path / "images", classes=("ant", "bee", "cicada"))
    second = finetune("--model", first / "model", "--dataset", folder, "--max_train_steps", 2,
                      "--output_dir", tmp_path / "insects", "--learning_rate", 1e-5, "--warmup_steps", 0)  # fmt: skip
    model = AutoModelForImageClassification.from_pretrained(second / "model")
    assert model.config.id2label == {0: "ant", 1: "bee", 2: "cicada"}
    before = AutoModelForImageClassification.from_pretrained(first / "model")
    change = model.skvit.layers[0].mlp.fc1.weight - before.skvit.layers[0].mlp.fc1.weight
    assert 0 < change.abs().max() < 1e-3  # trained from there, not afresh


def test_gradient_accumulation_is_a_larger_batch(tmp_path):
    weights = []
    for batch, accumulation in ((64, 4), (256, 1)):
        run = finetune("--recipe", "digits", "--max_train_steps", 1, "--per_device_train_batch_size", batch,
                       "--gradient_accumulation_steps", accumulation, "--crop_scale", 1, 1, "--rotation", 0, "--opt",
                       "sgd", "--warmup_steps", 0, "--output_dir", tmp_path / f"{batch}")  # fmt: skip
        weights.append(load_file(run / "model" / "model.safetensors"))
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6)


def test_every_parameter_is_optimized_once():
    from sk_transformers import create_model

    model = create_model("cskvit-nano-patch4-32")
    decayed, plain = (group["params"] for group in parameter_groups(model, 0.1))
    assert sorted(map(id, [*decayed, *plain])) == sorted(map(id, model.parameters()))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all(names[id(p)].endswith("weight") or "key" in names[id(p)] for p in decayed)
    assert any(names[id(p)].endswith("position_embeddings") for p in plain)


def test_each_image_is_evaluated_once(tmp_path):
    """Also when the last batch is smaller than the others."""
    from accelerate import Accelerator

    run = finetune(*QUICK, "--max_train_steps", 1, "--output_dir", tmp_path / "run")
    model = AutoModelForImageClassification.from_pretrained(run / "model").eval()
    from sk_transformers.training.data import data_loader, eval_transform

    from sk_transformers.training.model import load_model

    data = load_image_data("digits")
    _, processor = load_model(str(run / "model"), data.id2label)
    metrics = [
        evaluate(Accelerator(), model, data_loader(data.validation, eval_transform(processor), size, False, 0))
        for size in (360, 7)
    ]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--model", "skvit-nano-patch4-23", "--dataset", "digits"],
            "Unknown model 'skvit-nano-patch4-23'. Did you mean",
        ),
        (["--model", "org/nothing", "--dataset", "digits"], "--model org/nothing could not be loaded"),
        (["--model", "skvit-nano-patch4-32"], "--dataset is missing"),
        (["--recipe", "digit"], "--recipe digit: there is no such file, nor a recipe of that name among digits"),
        (["--resume_from_checkpoint", "latest"], "holds no checkpoint"),
        (["--resume_from_checkpoint", "nowhere"], "--resume_from_checkpoint nowhere: there is no such folder"),
        (["--num_train_epochs", "0"], "--num_train_epochs is 0, expected at least 1"),
        (["--crop_scale", "1", "0.5"], r"--crop_scale is \[1.0, 0.5\]"),
    ],
)
def test_wrong_options(tmp_path, options, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        finetune(*options, "--output_dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recipes_name_options(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("model: skvit-nano-patch4-32\ndataset: digits\nseed: 7\n")
    args = parse_arguments(["--recipe", str(recipe), "--hflip", "0.1"])
    assert (args.seed, args.hflip, args.output_dir) == (7, 0.1, "runs/skvit-nano-patch4-32-digits")
    recipe.write_text("epochs: 3\n")
    with pytest.raises(ValueError, match="mine.yaml sets 'epochs', which is not an option"):
        parse_arguments(["--recipe", str(recipe)])


def test_an_error_is_one_sentence_and_a_status():
    done = subprocess.run(
        [sys.executable, SCRIPTS / "finetune.py", "--recipe", "digit"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: --recipe digit: there is no such file") and done.stderr.count("\n") == 1


def test_a_run_is_not_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="run holds another run: choose another --output_dir"):
        finetune(*QUICK, "--output_dir", tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_broken_image_ends_a_launched_run(tmp_path):
    folder = write_images(tmp_path / "images")
    for file in folder.rglob("3.png"):
        file.write_bytes(b"not an image")
    done = launch("--model", "skvit-nano-patch4-32", "--dataset", folder, "--output_dir", tmp_path / "run",
                  "--num_workers", 1)  # fmt: skip
    assert done.returncode != 0
    assert "3.png is broken" in done.stderr
    assert "Traceback" not in done.stderr.split("error:")[0]


def test_two_processes_measure_what_one_does(tmp_path):
    """The same global batch, and augmentation off: it draws other numbers in other processes."""
    options = ["--recipe", "digits", "--max_train_steps", 4, "--crop_scale", 1, 1, "--rotation", 0,
               "--per_device_eval_batch_size", 50]  # fmt: skip
    runs = []
    for processes in (1, 2):
        runs.append(tmp_path / str(processes))
        batch = ["--per_device_train_batch_size", 64 // processes]
        done = launch(*options, *batch, "--output_dir", runs[-1], processes=processes)
        assert done.returncode == 0, done.stderr
    one, two = (metrics_of(run)["history"][-1] for run in runs)
    assert two == pytest.approx(one, rel=1e-3)


def test_a_killed_run_resumes(tmp_path):
    options = [*QUICK, "--output_dir", tmp_path / "run"]
    command = [sys.executable, SCRIPTS / "finetune.py", *options, "--num_train_epochs", "500"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stderr:
            if line.startswith("epoch   2.0"):
                break
        process.kill()
    run = finetune(*options, "--num_train_epochs", 4, "--resume_from_checkpoint", "latest")
    assert metrics_of(run)["history"][-1]["epoch"] == 4
