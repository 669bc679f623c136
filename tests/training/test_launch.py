"""Runs of several processes, and with weights that are split among them."""

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from safetensors.torch import load_file

from sk_transformers.recipes import accelerate_configurations

from ..support.training import QUICK, SCRIPTS, finetune, launch, metrics_of


@pytest.mark.slow
def test_the_script_and_the_module_are_one_program(tmp_path):
    runs = []
    for name, program in (("script", [SCRIPTS / "finetune.py"]), ("module", ["-m", "sk_transformers.cli.train"])):
        done = launch(*QUICK, "--max_train_steps", 1, "--output_dir", tmp_path / name, program=program)
        assert done.returncode == 0, done.stderr
        runs.append(metrics_of(tmp_path / name))
    assert runs[0]["history"] == runs[1]["history"]
    assert runs[0]["command"].startswith("accelerate launch scripts/finetune.py --recipe digits")
    assert runs[1]["command"].startswith("accelerate launch -m sk_transformers.cli.train --recipe digits")


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
