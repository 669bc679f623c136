"""Runs that train the head alone, or adapters."""

import pytest
import torch
from safetensors.torch import load_file

from ..support.training import QUICK, finetune


@pytest.mark.slow
def test_only_the_head_is_trained(tmp_path):
    first = finetune(*QUICK, "--max_train_steps", 1, "--output_dir", tmp_path / "first")
    second = finetune(*QUICK[:-4], "--model", first / "model", "--freeze_backbone", "--max_train_steps", 3,
                      "--output_dir", tmp_path / "second")  # fmt: skip
    before, after = (load_file(run / "model" / "model.safetensors") for run in (first, second))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.slow
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
