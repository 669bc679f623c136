"""Training runs, in this process or launched as a user launches them, and what they leave."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file

from sk_transformers.recipes import accelerate_configurations
from sk_transformers.training import loop
from sk_transformers.training.command_line import parse_options
from sk_transformers.training.loop import train

SCRIPTS = Path(__file__).parents[2] / "scripts"
PROGRAM = [SCRIPTS / "finetune.py"]
QUICK = ["--recipe", "digits", "--per_device_train_batch_size", "32", "--max_train_samples", "200",
         "--max_eval_samples", "60", "--config_overrides", "num_hidden_layers=1", "--warmup_steps", "2"]  # fmt: skip
EVERYTHING = [*QUICK, "--num_train_epochs", 4, "--per_device_train_batch_size", 16, "--gradient_accumulation_steps", 2,
              "--mixup", 0.8, "--cutmix", 1.0, "--mixup_off_epoch", 3.5, "--ema_decay", 0.8, "--drop_path_rate", 0.2,
              "--auto_augment", "rand-m5", "--random_erasing", 0.3, "--checkpointing_steps", 4]  # fmt: skip


def reset_states():
    """Forget what accelerate keeps of the last run in this process."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def finetune(*options):
    """Train in this process, and return the run's folder."""
    reset_states()
    torch.set_num_threads(1)
    return train(parse_options([*map(str, options)]))


@contextmanager
def dying_at(step):
    """Let a run in this process die before it takes that step, counted from 0, and expect that it does."""

    def die(setup, batches, at):
        if at == step:
            raise ConnectionError
        return train_step(setup, batches, at)

    train_step = loop.train_step
    with mock.patch.object(loop, "train_step", die), pytest.raises(ConnectionError):
        yield


def launch(*options, program=PROGRAM, processes=1, config="two_cpus", kill_at_step=None, kill_with=signal.SIGKILL):
    """Train in other processes, on the CPU; the first of them gets a signal before it takes that step."""
    launcher = ["accelerate.commands.launch"]
    if processes > 1:
        file = accelerate_configurations()[config]
        launcher += ["--config_file", str(file), "--num_processes", str(processes), "--main_process_port", "0",
                     "--mixed_precision", "no"]  # fmt: skip
    if config == "fsdp":
        program = [Path(__file__).with_name("fsdp_run.py")]
    if kill_at_step is not None:
        program = [Path(__file__).with_name("killed_run.py"), str(kill_at_step), str(int(kill_with))]
    return subprocess.run(
        [sys.executable, "-m", *launcher, *program, *map(str, options)],
        capture_output=True, text=True, timeout=600,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def metrics_of(run):
    """Return what the run measured."""
    return json.loads((run / "metrics.json").read_text())


def assert_same_runs(one, other, step):
    """Compare everything that two runs end with, to the bit."""
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
    """Return the leaves of a saved state by their paths, arrays as tensors."""
    if isinstance(state, dict):
        return {name: leaf for key, value in state.items() for name, leaf in flatten(value, f"{path}.{key}").items()}
    if isinstance(state, list | tuple):
        return {name: leaf for i, value in enumerate(state) for name, leaf in flatten(value, f"{path}.{i}").items()}
    return {path: torch.as_tensor(state) if hasattr(state, "__array__") else state}
