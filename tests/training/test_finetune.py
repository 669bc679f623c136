"""`scripts/finetune.py`, run as a user runs it."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from transformers import AutoModelForImageClassification, ViTImageProcessor, pipeline

from sk_transformers import create_model
from sk_transformers.data.loaders import read_image
from sk_transformers.data.sources import load_image_data
from sk_transformers.hub.export import export
from sk_transformers.image_processing import image_processor_for
from sk_transformers.recipes import accelerate_configurations, recipes
from sk_transformers.training import loop
from sk_transformers.training.command_line import parse_options
from sk_transformers.training.loop import train
from sk_transformers.training.signals import Stopped, TrainingError

from ..support.image_files import write_images

SCRIPTS = Path(__file__).parents[2] / "scripts"
QUICK = ["--recipe", "digits", "--per_device_train_batch_size", "32", "--max_train_samples", "200",
         "--max_eval_samples", "60", "--config_overrides", "num_hidden_layers=1", "--warmup_steps", "2"]  # fmt: skip


def finetune(*options):
    """Train in this process; the run's folder."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    torch.set_num_threads(1)
    return train(parse_options([*map(str, options)]))


def launch(*options, processes=1, config="two_cpus", kill_at_step=None, kill_with=signal.SIGKILL):
    """Train in other processes, on the processor; the first of them gets a signal before it takes that step."""
    launcher = ["accelerate.commands.launch"]
    if processes > 1:
        file = accelerate_configurations()[config]
        launcher += ["--config_file", str(file), "--num_processes", str(processes), "--main_process_port", "0",
                     "--mixed_precision", "no"]  # fmt: skip
    script = [Path(__file__).with_name("fsdp_run.py") if config == "fsdp" else SCRIPTS / "finetune.py"]
    if kill_at_step is not None:
        script = [Path(__file__).with_name("killed_run.py"), str(kill_at_step), str(int(kill_with))]
    return subprocess.run(
        [sys.executable, "-m", *launcher, *script, *map(str, options)],
        capture_output=True, text=True, timeout=600,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
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
    assert {path.name for path in run.iterdir()} == {"metrics.json", "model", "curves.png", *kept}
    assert (run / "model" / "curves.png").read_bytes() == (run / "curves.png").read_bytes()

    card = (run / "model" / "README.md").read_text()
    assert f"value: {round(metrics['best']['top1'], 4)}" in card and "no trained weights" not in card
    data = load_image_data("digits")
    image = read_image(data.validation[0]["image"])
    answers = pipeline("image-classification", model=str(run / "model"))(image, top_k=3)
    assert {answer["label"] for answer in answers} <= set(data.labels)


def test_a_run_says_how_it_was_made(tmp_path, monkeypatch):
    options = [*QUICK, "--max_train_steps", "1", "--seed", "7", "--output_dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/sk-transformers", "train", *options])
    metrics = metrics_of(finetune(*options))
    assert metrics["command"] == f"sk-transformers train {' '.join(options[:-1])} run"
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=SCRIPTS, capture_output=True, text=True)
    assert (metrics["commit"] or "").removesuffix("+changes") == git.stdout.strip()  # none outside of a checkout
    assert metrics["versions"]["torch"] == version("torch") and set(metrics["versions"]) > {"transformers", "timm"}
    assert metrics["seed"] == 7 and metrics["arguments"]["learning_rate"] == 2e-3  # the recipe's
    assert metrics["data"] == {"name": "digits", "revision": None, "train_images": 200, "validation_images": 60,
                               "labels": [str(digit) for digit in range(10)]}  # fmt: skip


def test_the_exported_model_has_the_reported_accuracy(tmp_path):
    run = finetune(*QUICK, "--num_train_epochs", 2, "--output_dir", tmp_path / "run")
    classify = pipeline("image-classification", model=str(run / "model"))
    data = load_image_data("digits", max_eval_samples=60)
    images = [read_image(image) for image in data.validation["image"]]
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
    for batch, accumulation in ((16, 4), (64, 1)):
        run = finetune(*QUICK, "--max_train_steps", 1, "--per_device_train_batch_size", batch,
                       "--gradient_accumulation_steps", accumulation, "--crop_scale", 1, 1, "--rotation", 0, "--opt",
                       "sgd", "--warmup_steps", 0, "--output_dir", tmp_path / f"{batch}")  # fmt: skip
        weights.append(load_file(run / "model" / "model.safetensors"))
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6)


def test_the_learning_rate_follows_the_global_batch(tmp_path):
    run = finetune(*QUICK, "--max_train_steps", 1, "--base_batch_size", 512, "--gradient_accumulation_steps", 2,
                   "--warmup_steps", 0, "--output_dir", tmp_path / "run")  # fmt: skip
    assert metrics_of(run)["history"][0]["learning_rate"] == pytest.approx(2e-3 * 32 * 2 / 512)


def test_the_gradient_of_a_step_is_clipped(tmp_path):
    """Plain gradient descent moves the weights by the learning rate times the gradient's norm."""
    run = finetune(*QUICK, "--max_train_steps", 2, "--gradient_accumulation_steps", 2, "--max_grad_norm", 0.03,
                   "--opt", "momentum", "--momentum", 0, "--weight_decay", 0, "--learning_rate", 0.5, "--schedule",
                   "constant", "--warmup_steps", 0, "--checkpointing_steps", 1, "--checkpoints_total_limit", 2,
                   "--output_dir", tmp_path / "run")  # fmt: skip
    before, after = (load_file(run / f"checkpoint-{step:07d}" / "model.safetensors") for step in (1, 2))
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before])
    assert moved.double().norm().item() == pytest.approx(0.5 * 0.03, rel=1e-3)


def test_nothing_is_mixed_from_an_epoch_on(tmp_path, monkeypatch):
    from sk_transformers.training.objective import Objective

    def watched(self, model, pixel_values, labels, mix):
        mixed.append(mix)
        return call(self, model, pixel_values, labels, mix)

    call, mixed = Objective.__call__, []
    monkeypatch.setattr(Objective, "__call__", watched)
    finetune(
        *QUICK, "--num_train_epochs", 3, "--mixup", 0.8, "--mixup_off_epoch", 1.5, "--output_dir", tmp_path / "run"
    )
    assert mixed == [True] * 9 + [False] * 9


# Several processes


def test_two_processes_train_as_one_with_their_batch(tmp_path):
    """Also the last of 59 validation images, which leave the processes unequal shares, counts once."""
    options = [*QUICK, "--num_train_epochs", 2, "--max_eval_samples", 59, "--gradient_accumulation_steps", 2,
               "--ema_decay", 0.8, "--max_grad_norm", 1, "--num_workers", 1]  # fmt: skip
    histories = []
    for processes, batch, eval_batch in ((1, 16, 10), (2, 8, 7)):
        batches = ["--per_device_train_batch_size", batch, "--per_device_eval_batch_size", eval_batch]
        done = launch(*options, *batches, "--output_dir", tmp_path / f"run{processes}", processes=processes)
        assert done.returncode == 0 and f"on {processes} x cpu" in done.stderr, done.stderr
        histories.append(metrics_of(tmp_path / f"run{processes}")["history"])
    assert [len(history) for history in histories] == [2, 2]
    for one, two in zip(*histories):
        assert two == pytest.approx(one, rel=1e-3)


def test_weights_that_are_split_train_as_whole_ones(tmp_path):
    """FSDP over two processes, also resumed in mid-epoch, against one process."""
    options = [*QUICK, "--model", "cskvit-nano-patch4-32", "--config_overrides", "num_hidden_layers=2",
               "--num_train_epochs", 2, "--max_grad_norm", 1, "--layer_decay", 0.8, "--checkpointing_steps", 4,
               "--checkpoints_total_limit", 4]  # fmt: skip
    half = [*options, "--per_device_train_batch_size", 16, "--resume_from_checkpoint",
            tmp_path / "split" / "checkpoint-0000008"]  # fmt: skip
    for name, given, how in (
        ("whole", [*options, "--per_device_train_batch_size", 32], {}),
        ("split", half[:-2], {"processes": 2, "config": "fsdp"}),
        ("resumed", half, {"processes": 2, "config": "fsdp"}),
    ):
        done = launch(*given, "--output_dir", tmp_path / name, **how)
        assert done.returncode == 0, done.stderr
    whole, split, resumed = (metrics_of(tmp_path / name)["history"] for name in ("whole", "split", "resumed"))
    assert resumed == split
    assert [entry["step"] for entry in split] == [6, 12]
    for one, two in zip(whole, split):
        assert two == pytest.approx(one, rel=1e-3)
    weights, expected = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("split", "whole"))
    assert weights.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], rtol=1e-2, atol=1e-4)


def test_adapters_train_split_and_in_half_precision(tmp_path):
    """FSDP as its configuration has it, in bfloat16, against one process."""
    options = [*QUICK, "--lora_rank", 2, "--num_train_epochs", 1, "--mixed_precision", "bf16"]
    split = launch(*options, "--per_device_train_batch_size", 16, "--output_dir", tmp_path / "split", processes=2,
                   config="fsdp")  # fmt: skip
    assert split.returncode == 0, split.stderr
    whole = finetune(*options, "--output_dir", tmp_path / "whole")
    entries = [metrics_of(run)["history"][0] for run in (tmp_path / "split", whole)]
    assert entries[0] == pytest.approx(entries[1], rel=0.02, abs=0.05)
    weights, expected = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("split", "whole"))
    assert weights.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], rtol=0.05, atol=5e-3)


MACHINES = {"one_gpu": ("NO", 1, 1), "eight_gpus": ("MULTI_GPU", 8, 1), "four_nodes": ("MULTI_GPU", 32, 4),
            "fsdp": ("FSDP", 8, 1), "deepspeed": ("DEEPSPEED", 8, 1)}  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_accelerate_knows_what_its_configurations_set(name):
    """It refuses a field that it does not know, and takes any option in a section."""
    config = load_config_from_file(str(accelerate_configurations()[name]))
    assert (config.distributed_type, config.num_processes, config.num_machines) == MACHINES[name]
    assert config.mixed_precision == "bf16"
    known = vars(launch_command_parser().parse_args(["script.py"]))
    assert {*config.fsdp_config, *config.deepspeed_config} <= set(known)


# Interruptions

EVERYTHING = [*QUICK, "--num_train_epochs", 4, "--per_device_train_batch_size", 16, "--gradient_accumulation_steps", 2,
              "--mixup", 0.8, "--cutmix", 1.0, "--mixup_off_epoch", 3.5, "--ema_decay", 0.8, "--drop_path_rate", 0.2,
              "--auto_augment", "rand-m5", "--random_erasing", 0.3, "--checkpointing_steps", 4]  # fmt: skip


def assert_same_runs(one, other, step):
    """Everything that a run ends with, to the bit."""
    assert metrics_of(one)["history"] == metrics_of(other)["history"]
    checkpoints = [run / f"checkpoint-{step:07d}" for run in (one, other)]
    files = [sorted(file.name for file in checkpoint.iterdir()) for checkpoint in checkpoints]
    assert files[0] == files[1] and "ema.safetensors" in files[0]
    for name in ("model.safetensors", "ema.safetensors"):
        weights, expected = (load_file(checkpoint / name) for checkpoint in checkpoints)
        assert all(torch.equal(weights[key], expected[key]) for key in expected)
    for name in files[0]:
        if name.endswith((".bin", ".pkl")):
            states = [torch.load(checkpoint / name, weights_only=False) for checkpoint in checkpoints]
            leaves, expected = map(flatten, states)
            assert leaves.keys() == expected.keys()
            for path, leaf in leaves.items():
                same = torch.equal(leaf, expected[path]) if torch.is_tensor(leaf) else leaf == expected[path]
                assert same, f"{name}: {path}"
    exported, expected = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    assert all(torch.equal(exported[key], expected[key]) for key in expected)


def flatten(state, path="state"):
    """The leaves of a saved state by their paths, arrays as tensors."""
    if isinstance(state, dict):
        return {name: leaf for key, value in state.items() for name, leaf in flatten(value, f"{path}.{key}").items()}
    if isinstance(state, list | tuple):
        return {name: leaf for i, value in enumerate(state) for name, leaf in flatten(value, f"{path}.{i}").items()}
    return {path: torch.as_tensor(state) if hasattr(state, "__array__") else state}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_goes_on_with_the_very_next_batch(tmp_path, processes):
    """Killed in the third epoch, one step after a checkpoint that lies in mid-epoch."""
    options = [*EVERYTHING, "--per_device_train_batch_size", 16 // processes]
    whole = launch(*options, "--output_dir", tmp_path / "whole", processes=processes)
    assert whole.returncode == 0, whole.stderr
    killed = launch(*options, "--output_dir", tmp_path / "killed", processes=processes, kill_at_step=17)
    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr or processes == 1
    assert (tmp_path / "killed" / "checkpoint-0000016").is_dir() and not (tmp_path / "killed" / "model").exists()
    resumed = launch(*options, "--output_dir", tmp_path / "killed", "--resume_from_checkpoint", "latest",
                     processes=processes)  # fmt: skip
    assert resumed.returncode == 0 and "Steps 16 to 24" in resumed.stderr, resumed.stderr
    assert_same_runs(tmp_path / "killed", tmp_path / "whole", step=24)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [8, 12])  # within an epoch, and at its end, before the evaluation
def test_a_signal_saves_and_ends_the_run(tmp_path, monkeypatch, number, step):
    options = [*EVERYTHING, "--num_train_epochs", 3]
    whole = finetune(*options, "--output_dir", tmp_path / "whole")

    def signalled(setup, batches, at, stop):
        if at == step - 1:
            os.kill(os.getpid(), number)
        return train_step(setup, batches, at, stop)

    train_step = loop.train_step
    monkeypatch.setattr(loop, "train_step", signalled)
    with pytest.raises(Stopped, match=f"Stopped and saved at step {step} of 18") as stopped:
        finetune(*options, "--output_dir", tmp_path / "stopped")
    assert stopped.value.status == 128 + number
    monkeypatch.setattr(loop, "train_step", train_step)
    resumed = finetune(*options, "--output_dir", tmp_path / "stopped", "--resume_from_checkpoint", "latest")
    assert_same_runs(resumed, whole, step=18)


def test_a_signal_in_the_last_evaluation_ends_the_run(tmp_path, monkeypatch):
    options = [*EVERYTHING, "--num_train_epochs", 1]
    whole = finetune(*options, "--output_dir", tmp_path / "whole")

    def signalled(setup, state):
        os.kill(os.getpid(), signal.SIGTERM)
        evaluate_epoch(setup, state)

    evaluate_epoch = loop.evaluate_epoch
    monkeypatch.setattr(loop, "evaluate_epoch", signalled)
    with pytest.raises(Stopped, match="Stopped and saved at step 6 of 6"):
        finetune(*options, "--output_dir", tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "model").exists()
    monkeypatch.setattr(loop, "evaluate_epoch", evaluate_epoch)
    resumed = finetune(*options, "--output_dir", tmp_path / "stopped", "--resume_from_checkpoint", "latest")
    assert_same_runs(resumed, whole, step=6)


def test_one_of_two_processes_says_that_they_stopped(tmp_path):
    stopped = launch(*QUICK, "--num_train_epochs", 3, "--output_dir", tmp_path / "run", processes=2, kill_at_step=4,
                     kill_with=signal.SIGTERM)  # fmt: skip
    assert stopped.returncode != 0
    assert stopped.stderr.count("Stopped and saved at step 5 of 9. Go on with --resume") == 1, stopped.stderr


def test_a_checkpoint_that_was_being_written_is_not_picked_up(tmp_path, monkeypatch):
    from sk_transformers.training import checkpoints

    def die_while_writing(file, text):
        if str(file.parent).endswith("12.partial"):
            raise KeyboardInterrupt
        return write_text(file, text)

    write_text = Path.write_text
    monkeypatch.setattr(checkpoints.Path, "write_text", die_while_writing)
    with pytest.raises(KeyboardInterrupt):
        finetune(*QUICK, "--num_train_epochs", 3, "--output_dir", tmp_path / "run")
    assert (tmp_path / "run" / ".checkpoint-0000012.partial").is_dir()
    monkeypatch.setattr(checkpoints.Path, "write_text", write_text)
    assert checkpoints.find_checkpoint(tmp_path / "run", "latest").name == "checkpoint-0000006"
    options = ["--num_train_epochs", 3, "--output_dir", tmp_path / "run", "--resume_from_checkpoint", "latest"]
    run = finetune(*QUICK, *options)
    assert [entry["step"] for entry in metrics_of(run)["history"]] == [6, 12, 18]


def test_a_run_does_not_go_on_with_other_batches(tmp_path):
    first = finetune(*QUICK, "--num_train_epochs", 1, "--output_dir", tmp_path / "first")
    again = [*QUICK, "--resume_from_checkpoint", first / "checkpoint-0000006", "--output_dir", tmp_path / "second"]
    with pytest.raises(ValueError, match="was made with --seed 0, and this run has 1: its next batch would be another"):
        finetune(*again, "--seed", 1)
    with pytest.raises(ValueError, match="was made with a global batch of 32, and this run has 64"):
        finetune(*again, "--per_device_train_batch_size", 64)
    with pytest.raises(ValueError, match="has no averaged weights: leave --ema_decay out"):
        finetune(*again, "--ema_decay", 0.9)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch, loss):
    from sk_transformers.training.objective import Objective

    def broken(self, model, pixel_values, labels, mix):
        broken.calls += 1
        return call(self, model, pixel_values, labels, mix) * (loss if broken.calls == 8 else 1)

    call, broken.calls = Objective.__call__, 0
    monkeypatch.setattr(Objective, "__call__", broken)
    sentence = (
        r"the loss is (nan|inf) at step 8, with a learning rate of 0.00\d+; .*checkpoint-0000006 is the last good"
    )
    with pytest.raises(TrainingError, match=sentence):
        finetune(*QUICK, "--num_train_epochs", 2, "--output_dir", tmp_path / "run")


def test_a_loader_that_dies_ends_the_run(tmp_path, monkeypatch):
    from sk_transformers.data import loaders

    def die(image):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(loaders, "read_image", die)
    with pytest.raises(TrainingError, match="a process that loads images died: .* lower --num_workers"):
        finetune(*QUICK, "--num_workers", 1, "--output_dir", tmp_path / "run")


# What a run can do


def test_averaged_weights_are_evaluated_and_exported(tmp_path):
    run = finetune(*QUICK, "--max_train_steps", 5, "--ema_decay", 0.7, "--checkpointing_steps", 1,
                   "--checkpoints_total_limit", 9, "--output_dir", tmp_path / "run")  # fmt: skip
    saved = [load_file(run / f"checkpoint-{step:07d}" / "model.safetensors") for step in range(1, 6)]
    average = load_file(run / "model" / "model.safetensors")
    for name in average:
        expected = saved[0][name].double()  # timm starts from the first step's weights
        for weights in saved[1:]:
            expected = 0.7 * expected + 0.3 * weights[name].double()
        torch.testing.assert_close(average[name].double(), expected, rtol=1e-5, atol=1e-7)
    metrics = metrics_of(run)
    assert metrics["best"]["top1"] == metrics["history"][0]["ema_top1"]
    assert metrics["best"]["loss"] != metrics["history"][0]["loss"]


def test_only_the_head_is_trained(tmp_path):
    first = finetune(*QUICK, "--max_train_steps", 1, "--output_dir", tmp_path / "first")
    second = finetune(*QUICK[:-4], "--model", first / "model", "--freeze_backbone", "--max_train_steps", 3,
                      "--output_dir", tmp_path / "second")  # fmt: skip
    before, after = (load_file(run / "model" / "model.safetensors") for run in (first, second))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_adapters_are_merged(tmp_path):
    first = finetune(*QUICK, "--max_train_steps", 1, "--output_dir", tmp_path / "first")
    options = ["--model", first / "model", "--lora_rank", 2, "--learning_rate", 0.01, "--warmup_steps", 0]
    second = finetune(*QUICK[:-4], *options, "--max_train_steps", 3, "--output_dir", tmp_path / "second")
    before, after = (load_file(run / "model" / "model.safetensors") for run in (first, second))
    assert set(before) == set(after)
    for name in before:
        is_adapted = ".mixer." in name or ".mlp." in name
        difference = (after[name] - before[name]).double()
        if is_adapted and name.endswith("weight"):
            assert torch.linalg.matrix_rank(difference, rtol=1e-4) == 2
        elif not name.startswith("classifier"):
            assert not difference.any()


@pytest.mark.parametrize("options", [["--gradient_checkpointing"], ["--channels_last"], ["--num_workers", 2]])
def test_what_saves_time_or_memory_changes_no_result(tmp_path, options):
    runs = [finetune(*QUICK, "--max_train_steps", 3, *given, "--output_dir", tmp_path / str(len(given)))
            for given in ([], options)]  # fmt: skip
    weights = [load_file(run / "model" / "model.safetensors") for run in runs]
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-4, atol=1e-6)


def test_patience_ends_a_run(tmp_path):
    run = finetune(*QUICK, "--num_train_epochs", 9, "--learning_rate", 1e-12, "--early_stopping_patience", 2,
                   "--output_dir", tmp_path / "run")  # fmt: skip
    assert [entry["step"] for entry in metrics_of(run)["history"]] == [6, 12, 18]


def test_patience_has_ended_a_run_that_is_resumed(tmp_path, monkeypatch, capsys):
    """Stopped after it was out of patience and before it was exported."""
    options = [*QUICK, "--num_train_epochs", 9, "--learning_rate", 1e-12, "--early_stopping_patience", 2]
    monkeypatch.setattr(loop, "finish", lambda setup, run, state: None)
    finetune(*options, "--output_dir", tmp_path / "run")
    monkeypatch.undo()
    run = finetune(*options, "--output_dir", tmp_path / "run", "--resume_from_checkpoint", "latest")
    assert [entry["step"] for entry in metrics_of(run)["history"]] == [6, 12, 18]
    assert capsys.readouterr().err.count("No better for 2 evaluations: stopped early at step 18 of 54.") == 2


def test_a_run_whose_best_checkpoint_is_lost_finds_another(tmp_path, monkeypatch):
    options = [*QUICK, "--num_train_epochs", 9, "--learning_rate", 1e-12, "--early_stopping_patience", 2]
    monkeypatch.setattr(loop, "finish", lambda setup, run, state: None)
    finetune(*options, "--output_dir", tmp_path / "run")
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "run" / "checkpoint-0000006")
    run = finetune(*options, "--output_dir", tmp_path / "run", "--resume_from_checkpoint", "latest")
    assert metrics_of(run)["best"]["step"] == 24


def test_a_teacher_is_learnt_from(tmp_path):
    """The loss of a step on all images, by hand."""
    torch.manual_seed(0)
    data = load_image_data("digits", max_train_samples=32)
    teacher = create_model("vit-nano-patch4-32", id2label=data.id2label).eval()
    teacher.classifier.weight.data *= 30  # so that it is sure of something
    repo = export(teacher, image_processor_for(teacher.config.image_size), tmp_path / "teacher")
    run = finetune(*QUICK, "--max_train_samples", 32, "--max_train_steps", 1, "--learning_rate", 1e-30,
                   "--crop_scale", 1, 1, "--rotation", 0, "--teacher", repo, "--distillation_weight", 0.75,
                   "--distillation_temperature", 2, "--output_dir", tmp_path / "run")  # fmt: skip
    student = AutoModelForImageClassification.from_pretrained(run / "model").eval()
    pixels = ViTImageProcessor(size={"height": 32, "width": 32})(
        [read_image(image) for image in data.train["image"]], return_tensors="pt"
    ).pixel_values
    with torch.no_grad():
        logits, soft = (model(pixel_values=pixels).logits for model in (student, teacher))
    hard = torch.nn.functional.cross_entropy(logits, torch.tensor(data.train["label"]))
    p, q = (soft / 2).softmax(-1), (logits / 2).softmax(-1)
    expected = 0.25 * hard + 0.75 * 4 * (p * (p / q).log()).sum(-1).mean()
    assert abs(expected - hard) > 0.1
    assert metrics_of(run)["history"][0]["train_loss"] == pytest.approx(expected.item(), rel=5e-3)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_is_the_same_to_rounding(tmp_path):
    torch.compiler.reset()
    counters.clear()
    runs = [finetune(*QUICK, "--max_train_steps", 3, *given, "--output_dir", tmp_path / f"run{len(given)}")
            for given in ([], ["--compile"])]  # fmt: skip
    assert counters["stats"]["unique_graphs"] > 0
    eager, compiled = (metrics_of(run)["history"][0] for run in runs)
    assert compiled["train_loss"] == pytest.approx(eager["train_loss"], rel=1e-4)
    assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-4)
    weights = [load_file(run / "model" / "model.safetensors") for run in runs]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.isfinite(weight).all() for weight in weights[1].values())


def test_curves_of_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ["--num_train_epochs", 2, "--report_to", "tensorboard"]
    run = finetune(*QUICK, *options, "--output_dir", tmp_path / "run")
    events = EventAccumulator(str(run / "sk_transformers")).Reload()
    assert [event.step for event in events.Scalars("train_loss")] == list(range(1, 13))
    logged = [event.value for event in events.Scalars("eval_top1")]
    assert logged == pytest.approx([entry["top1"] for entry in metrics_of(run)["history"]])


def test_a_resumed_run_goes_on_with_its_curves(tmp_path, monkeypatch):
    """In Trackio and, offline, Weights & Biases: one run of the folder's name, with every step once."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    options = [*QUICK, "--num_train_epochs", 2, "--report_to", "trackio", "wandb", "--output_dir", tmp_path / "insects"]
    stopped = launch(*options, kill_at_step=8, kill_with=signal.SIGTERM)
    assert "Stopped and saved at step 9 of 12" in stopped.stderr, stopped.stderr
    resumed = launch(*options, "--resume_from_checkpoint", "latest")
    assert resumed.returncode == 0, resumed.stderr

    def curve(name):
        found = subprocess.run(
            [sys.executable, "-m", "trackio.cli", "get", "metric", "--project", "sk_transformers", "--run", "insects",
             "--metric", name, "--json"], capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [(point["step"], point["value"]) for point in json.loads(found.stdout)["values"]]

    history = metrics_of(tmp_path / "insects")["history"]
    assert [step for step, _ in curve("train_loss")] == list(range(1, 13))
    assert curve("eval_top1") == [(entry["step"], pytest.approx(entry["top1"])) for entry in history]
    folders = [path for path in (tmp_path / "insects" / "wandb").iterdir() if path.name.startswith("offline-run-")]
    assert len(folders) == 2 and len({folder.name.split("-")[-1] for folder in folders}) == 1  # one run's two parts
    synced_later = b"".join(file.read_bytes() for file in max(folders).glob("*.wandb"))
    assert all(text in synced_later for text in (b"insects", b"eval_top1", str(history[-1]["top1"]).encode()))


def test_a_stream_is_trained_on(tmp_path):
    for split in ("train", "validation"):
        write_images(tmp_path / "images" / split, images=8)
    options = ["--model", "skvit-nano-patch4-32", "--dataset", tmp_path / "images", "--streaming"]
    with pytest.raises(ValueError, match="does not tell how many images it has: give --steps_per_epoch"):
        finetune(*options, "--output_dir", tmp_path / "run")
    run = finetune(*options, "--steps_per_epoch", 3, "--per_device_train_batch_size", 8, "--num_train_epochs", 2,
                   "--output_dir", tmp_path / "run")  # fmt: skip
    assert [entry["step"] for entry in metrics_of(run)["history"]] == [3, 6]


def test_a_stream_goes_on_with_the_very_next_batch(tmp_path, monkeypatch):
    """After a run that died in mid-epoch of its second epoch, in the second pass over the stream."""
    for split in ("train", "validation"):
        write_images(tmp_path / "images" / split, images=8)
    options = ["--model", "skvit-nano-patch4-32", "--dataset", tmp_path / "images", "--streaming",
               "--shuffle_buffer", 9, "--steps_per_epoch", 4, "--per_device_train_batch_size", 6,
               "--num_train_epochs", 2, "--ema_decay", 0.9, "--checkpointing_steps", 1,
               "--auto_augment", "rand-m5"]  # fmt: skip
    whole = finetune(*options, "--output_dir", tmp_path / "whole")

    def die(setup, batches, step, stop):
        if step == 6:
            raise ConnectionError
        return train_step(setup, batches, step, stop)

    train_step = loop.train_step
    monkeypatch.setattr(loop, "train_step", die)
    with pytest.raises(ConnectionError):
        finetune(*options, "--output_dir", tmp_path / "died")
    monkeypatch.setattr(loop, "train_step", train_step)
    resumed = finetune(*options, "--output_dir", tmp_path / "died", "--resume_from_checkpoint", "latest")
    assert_same_runs(resumed, whole, step=8)


def test_broken_images_are_skipped_and_counted(tmp_path):
    folder = write_images(tmp_path / "images", images=20)
    for file in folder.rglob("1*.png"):
        file.write_bytes(b"not an image")
    run = finetune("--model", "skvit-nano-patch4-32", "--dataset", folder, "--on_unreadable", "skip",
                   "--per_device_train_batch_size", 8, "--num_train_epochs", 1, "--output_dir", tmp_path / "run",
                   "--warmup_steps", 0)  # fmt: skip
    entry = metrics_of(run)["history"][0]
    held_out = load_image_data(str(folder)).validation["image"]
    assert entry["unreadable"] > 0
    assert entry["unreadable_validation"] == sum(Path(image["path"]).name[:1] == "1" for image in held_out) > 0


# Recipes


@pytest.mark.parametrize("recipe", recipes())
def test_each_recipe_trains(tmp_path, recipe):
    """Two steps of each, with everything it sets but the size of network, images and batch."""
    folder = write_images(tmp_path / "images", classes=("ant", "bee"), images=12)
    model = ["--model", "skvit-nano-patch4-32"]
    if recipe.startswith("imagenet1k"):
        model = ["--model", f"{recipe.split('-')[1]}-nano", "--image_size", 32]
    if recipe.endswith("384"):  # from a trained network of half the size
        first = finetune("--model", "skaformer-nano", "--dataset", folder, "--image_size", 32, "--max_train_steps", 1,
                         "--output_dir", tmp_path / "first")  # fmt: skip
        model = ["--model", first / "model", "--image_size", 64]
    small = ["--per_device_train_batch_size", 8, "--gradient_accumulation_steps", 1, "--num_workers", 0]
    if recipe in ("cifar10", "cifar100"):
        small += ["--label_column", "label"]
    run = finetune("--recipe", recipe, *model, "--dataset", folder, *small, "--max_train_steps", 2,
                   "--output_dir", tmp_path / "run")  # fmt: skip
    assert metrics_of(run)["best"]["step"] >= 1
