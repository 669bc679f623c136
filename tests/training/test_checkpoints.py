"""Runs that go on from a checkpoint as if they had not stopped."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sk_transformers.training import loop

from ..support.image_files import write_images
from ..support.training import EVERYTHING, QUICK, assert_same_runs, dying_at, finetune, launch, metrics_of


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_stream_goes_on_with_the_very_next_batch(tmp_path):
    """After a run that died in mid-epoch of its second epoch, in the second pass over the stream."""
    for split in ("train", "validation"):
        write_images(tmp_path / "images" / split, images=8)
    options = ["--model", "skvit-nano-patch4-32", "--dataset", tmp_path / "images", "--streaming",
               "--shuffle_buffer", 9, "--steps_per_epoch", 4, "--per_device_train_batch_size", 6,
               "--num_train_epochs", 2, "--ema_decay", 0.9, "--checkpointing_steps", 1,
               "--auto_augment", "rand-m5"]  # fmt: skip
    whole = finetune(*options, "--output_dir", tmp_path / "whole")

    with dying_at(6):
        finetune(*options, "--output_dir", tmp_path / "died")
    resumed = finetune(*options, "--output_dir", tmp_path / "died", "--resume_from_checkpoint", "latest")
    assert_same_runs(resumed, whole, step=8)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_whose_best_checkpoint_is_lost_finds_another(tmp_path, monkeypatch):
    options = [*QUICK, "--num_train_epochs", 9, "--learning_rate", 1e-12, "--early_stopping_patience", 2]
    monkeypatch.setattr(loop, "finish", lambda setup, run, state: None)
    finetune(*options, "--output_dir", tmp_path / "run")
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "run" / "checkpoint-0000006")
    run = finetune(*options, "--output_dir", tmp_path / "run", "--resume_from_checkpoint", "latest")
    assert metrics_of(run)["best"]["step"] == 24


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_batches(tmp_path):
    first = finetune(*QUICK, "--num_train_epochs", 1, "--output_dir", tmp_path / "first")
    again = [*QUICK, "--resume_from_checkpoint", first / "checkpoint-0000006", "--output_dir", tmp_path / "second"]
    with pytest.raises(ValueError, match="was made with --seed 0, and this run has 1: its next batch would be another"):
        finetune(*again, "--seed", 1)
    with pytest.raises(ValueError, match="was made with a global batch of 32, and this run has 64"):
        finetune(*again, "--per_device_train_batch_size", 64)
    with pytest.raises(ValueError, match="has no averaged weights: leave --ema_decay out"):
        finetune(*again, "--ema_decay", 0.9)


# Data that changed


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of two classes that stopped, and the options it had."""
    folder = tmp_path_factory.mktemp("stopped")
    options = ["--model", "skvit-nano-patch4-32", "--dataset", write_images(folder / "images", images=12),
               "--max_train_steps", 1, "--per_device_train_batch_size", 8]  # fmt: skip
    run = finetune(*options, "--output_dir", folder / "run")
    shutil.rmtree(run / "model")
    return folder, options


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda images: (images / "cat").rename(images / "kitten"), "classes differ: 'cat' gone, 'kitten' new"),
        (lambda images: write_images(images, classes=["eel"]), "classes differ: 'eel' new"),
        (
            lambda images: [shutil.copy(images / "cat" / f"{n}.png", images / "cat" / f"a{n}.png") for n in range(6)],
            r"train had 19 images and has 24 \('cat' \d+ -> \d+",
        ),
        (lambda images: (images / "dog" / "3.png").write_bytes(b"of another size"), "files have other names, sizes"),
        (
            lambda images: (images / "dog" / "3.png").rename(images / "dog" / "x.png"),
            "files have other names, sizes",
        ),
    ],
)
def test_a_run_does_not_go_on_with_other_data(stopped, tmp_path, change, sentence):
    folder, options = stopped
    shutil.copytree(folder, tmp_path / "copy")
    images, run = tmp_path / "copy" / "images", tmp_path / "copy" / "run"
    change(images)
    resume = ["--dataset", images, "--output_dir", run, "--resume_from_checkpoint", "latest", "--max_train_steps", 2]
    with pytest.raises(ValueError, match=f"checkpoint-0000001 was made with other data: {sentence}"):
        finetune(*options, *resume)
    if "classes" in sentence:
        with pytest.raises(ValueError, match="or start a new run with --model from the old one's[.]$"):
            finetune(*options, *resume, "--resume_on_changed_data")


def test_a_run_goes_on_with_other_data_where_it_is_told_to(stopped, tmp_path):
    folder, options = stopped
    shutil.copytree(folder, tmp_path / "copy")
    images, run = tmp_path / "copy" / "images", tmp_path / "copy" / "run"
    resume = ["--dataset", images, "--output_dir", run, "--resume_from_checkpoint", "latest", "--max_train_steps", 2]
    with pytest.raises(ValueError, match="were 0.2 held out by --split_seed 0, and are 0.2 held out by --split_seed 1"):
        finetune(*options, *resume, "--split_seed", 1)
    (images / "dog" / "3.png").rename(images / "dog" / "x.png")
    finetune(*options, *resume, "--resume_on_changed_data")
    assert len(metrics_of(run)["history"]) == 2
