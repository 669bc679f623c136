"""Runs that end before their time: by a signal, or because a process died."""

import multiprocessing
import os
import signal

import pytest

from sk_transformers.training import loop
from sk_transformers.training.signals import Stopped, TrainingError

from ..support.training import EVERYTHING, QUICK, assert_same_runs, finetune, launch


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [8, 12])  # within an epoch, and at its end, before the evaluation
def test_a_signal_saves_and_ends_the_run(tmp_path, monkeypatch, number, step):
    """It comes to the processes that load images, too, as schedulers send it."""
    options = [*EVERYTHING, "--num_train_epochs", 3, "--num_workers", 2]
    whole = finetune(*options, "--output_dir", tmp_path / "whole")

    def signalled(setup, batches, at):
        if at == step - 1:
            loaders = multiprocessing.active_children() if step == 8 else []  # between epochs they come and go
            assert loaders or step == 12
            for process in (*(loader.pid for loader in loaders), os.getpid()):
                os.kill(process, number)
        return train_step(setup, batches, at)

    train_step = loop.train_step
    monkeypatch.setattr(loop, "train_step", signalled)
    with pytest.raises(Stopped, match=f"Stopped and saved at step {step} of 18") as stopped:
        finetune(*options, "--output_dir", tmp_path / "stopped")
    assert stopped.value.status == 128 + number
    assert not multiprocessing.active_children()  # while the traceback still holds all that the run had
    monkeypatch.setattr(loop, "train_step", train_step)
    resumed = finetune(*options, "--output_dir", tmp_path / "stopped", "--resume_from_checkpoint", "latest")
    assert_same_runs(resumed, whole, step=18)


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_processes_stop_where_they_read_their_losses_and_one_says_so(tmp_path):
    stopped = launch(*QUICK, "--num_train_epochs", 3, "--output_dir", tmp_path / "run", "--logging_steps", 5,
                     processes=2, kill_at_step=3, kill_with=signal.SIGTERM)  # fmt: skip
    assert stopped.returncode != 0
    assert stopped.stderr.count("Stopped and saved at step 5 of 9. Go on with --resume") == 1, stopped.stderr


def test_a_loader_that_dies_ends_the_run(tmp_path, monkeypatch):
    from sk_transformers.data import loaders

    def die(image):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(loaders, "read_image", die)
    with pytest.raises(TrainingError, match="a process that loads images died: .* lower --num_workers"):
        finetune(*QUICK, "--num_workers", 1, "--output_dir", tmp_path / "run")
