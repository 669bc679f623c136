"""The steps of a run, and when it ends."""

import math
from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from safetensors.torch import load_file

from sk_transformers.training import loop
from sk_transformers.training.signals import TrainingError

from ..support.image_files import load_images, write_images
from ..support.training import QUICK, finetune, metrics_of


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(tmp_path):
    runs = [
        finetune(*QUICK, "--max_train_steps", 3, "--seed", seed, "--output_dir", tmp_path / f"run{i}")
        for i, seed in enumerate((1, 1, 2))
    ]
    first, again, other = (load_file(run / "model" / "model.safetensors") for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.slow
def test_gradient_accumulation_is_a_larger_batch(tmp_path):
    weights = []
    for batch, accumulation in ((16, 4), (64, 1)):
        run = finetune(*QUICK, "--max_train_steps", 1, "--per_device_train_batch_size", batch,
                       "--gradient_accumulation_steps", accumulation, "--crop_scale", 1, 1, "--rotation", 0, "--opt",
                       "sgd", "--warmup_steps", 0, "--output_dir", tmp_path / f"{batch}")  # fmt: skip
        weights.append(load_file(run / "model" / "model.safetensors"))
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_gradient_of_a_step_is_clipped(tmp_path):
    """Plain gradient descent moves the weights by the learning rate times the gradient's norm."""
    run = finetune(*QUICK, "--max_train_steps", 2, "--gradient_accumulation_steps", 2, "--max_grad_norm", 0.03,
                   "--opt", "momentum", "--momentum", 0, "--weight_decay", 0, "--learning_rate", 0.5, "--schedule",
                   "constant", "--warmup_steps", 0, "--checkpointing_steps", 1, "--checkpoints_total_limit", 2,
                   "--output_dir", tmp_path / "run")  # fmt: skip
    before, after = (load_file(run / f"checkpoint-{step:07d}" / "model.safetensors") for step in (1, 2))
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before])
    assert moved.double().norm().item() == pytest.approx(0.5 * 0.03, rel=1e-3)


@pytest.mark.slow
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


@pytest.mark.slow
def test_patience_ends_a_run(tmp_path):
    run = finetune(*QUICK, "--num_train_epochs", 9, "--learning_rate", 1e-12, "--early_stopping_patience", 2,
                   "--output_dir", tmp_path / "run")  # fmt: skip
    assert [entry["step"] for entry in metrics_of(run)["history"]] == [6, 12, 18]


@pytest.mark.slow
def test_patience_has_ended_a_run_that_is_resumed(tmp_path, monkeypatch, capsys):
    """Stopped after it was out of patience and before it was exported."""
    options = [*QUICK, "--num_train_epochs", 9, "--learning_rate", 1e-12, "--early_stopping_patience", 2]
    monkeypatch.setattr(loop, "finish", lambda setup, run, state: None)
    finetune(*options, "--output_dir", tmp_path / "run")
    monkeypatch.undo()
    run = finetune(*options, "--output_dir", tmp_path / "run", "--resume_from_checkpoint", "latest")
    assert [entry["step"] for entry in metrics_of(run)["history"]] == [6, 12, 18]
    assert capsys.readouterr().err.count("No better for 2 evaluations: stopped early at step 18 of 54.") == 2


@pytest.mark.slow
def test_a_stream_is_trained_on(tmp_path):
    for split in ("train", "validation"):
        write_images(tmp_path / "images" / split, images=8)
    (tmp_path / "parquet").mkdir()
    for split, images in load_dataset("imagefolder", data_dir=str(tmp_path / "images")).items():
        images.to_parquet(tmp_path / "parquet" / f"{split}.parquet")
    options = ["--model", "skvit-nano-patch4-32", "--streaming", "--dataset", tmp_path / "parquet"]
    with pytest.raises(ValueError, match="does not tell how many images it has: give --steps_per_epoch"):
        finetune(*options, "--output_dir", tmp_path / "run")
    run = finetune(*options, "--steps_per_epoch", 3, "--per_device_train_batch_size", 8, "--num_train_epochs", 2,
                   "--output_dir", tmp_path / "run")  # fmt: skip
    assert [entry["step"] for entry in metrics_of(run)["history"]] == [3, 6]


def test_unreadable_images_are_skipped_and_counted(tmp_path):
    folder = write_images(tmp_path / "images", images=20)
    for file in folder.rglob("1*.png"):
        file.write_bytes(b"not an image")
    run = finetune("--model", "skvit-nano-patch4-32", "--dataset", folder, "--on_bad_image", "skip",
                   "--per_device_train_batch_size", 8, "--num_train_epochs", 1, "--output_dir", tmp_path / "run",
                   "--warmup_steps", 0)  # fmt: skip
    entry = metrics_of(run)["history"][0]
    held_out = load_images(folder).validation["image"]
    assert entry["unreadable"] > 0
    assert entry["unreadable_validation"] == sum(Path(image["path"]).name[:1] == "1" for image in held_out) > 0
