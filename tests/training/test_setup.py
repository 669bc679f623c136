"""What a run is made of: weights to start from, learning rate, memory and speed."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from transformers import AutoModelForImageClassification

from ..support.image_files import write_images
from ..support.training import QUICK, finetune, metrics_of


@pytest.mark.slow
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


def test_the_learning_rate_follows_the_global_batch(tmp_path):
    run = finetune(*QUICK, "--max_train_steps", 1, "--base_batch_size", 512, "--gradient_accumulation_steps", 2,
                   "--warmup_steps", 0, "--output_dir", tmp_path / "run")  # fmt: skip
    assert metrics_of(run)["history"][0]["learning_rate"] == pytest.approx(2e-3 * 32 * 2 / 512)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--gradient_checkpointing"], ["--channels_last"], ["--num_workers", 2]])
def test_what_saves_time_or_memory_changes_no_result(tmp_path, options):
    runs = [finetune(*QUICK, "--max_train_steps", 3, *given, "--output_dir", tmp_path / str(len(given)))
            for given in ([], options)]  # fmt: skip
    weights = [load_file(run / "model" / "model.safetensors") for run in runs]
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
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
