"""Curves that trackers show while a run goes on."""

import json
import signal
import subprocess
import sys

import pytest

from ..support.training import QUICK, finetune, launch, metrics_of


@pytest.mark.slow
def test_curves_of_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ["--num_train_epochs", 2, "--report_to", "tensorboard"]
    run = finetune(*QUICK, *options, "--output_dir", tmp_path / "run")
    events = EventAccumulator(str(run / "sk_transformers")).Reload()
    assert [event.step for event in events.Scalars("train_loss")] == list(range(1, 13))
    logged = [event.value for event in events.Scalars("eval_top1")]
    assert logged == pytest.approx([entry["top1"] for entry in metrics_of(run)["history"]])


@pytest.mark.slow
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
