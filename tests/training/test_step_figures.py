"""Steps wait for nothing, and what they leave is read in time."""

import math

import pytest
import torch
from accelerate import Accelerator

from sk_transformers.training import setup as setting_up
from sk_transformers.training.command_line import parse_options
from sk_transformers.training.loop import train_step
from sk_transformers.training.objective import Objective
from sk_transformers.training.signals import TrainingError

from ..support.training import QUICK, finetune, metrics_of, reset_states


@pytest.fixture
def meta_setup(tmp_path, monkeypatch):
    """Return a function that sets up a run on the device "meta": whatever asks for a value there raises.

    Without averaged weights, since timm's average keeps a generator of random numbers, which "meta" has none of.
    """

    def load_on_meta(*args, **fields):
        network, processor = load_model(*args, **fields)
        return network.to("meta"), processor

    load_model = setting_up.load_model
    monkeypatch.setattr(Accelerator, "device", torch.device("meta"))
    monkeypatch.setattr(setting_up, "load_model", load_on_meta)

    def make(*options):
        reset_states()
        everything = [*QUICK, "--max_grad_norm", 1, "--gradient_accumulation_steps", 2, "--label_smoothing", 0.1,
                      "--output_dir", tmp_path / "run", *options]  # fmt: skip
        return setting_up.set_up(parse_options([*map(str, everything)]))

    yield make
    reset_states()


@pytest.mark.parametrize("model", ["skvit-nano-patch4-32", "cskaformer-nano"])
@pytest.mark.parametrize("opt", ["sgd", "lamb", "muon"])
def test_a_step_waits_for_no_value_of_the_device(meta_setup, model, opt):
    overrides = {"skvit-nano-patch4-32": "num_hidden_layers=2", "cskaformer-nano": "image_size=32"}[model]
    setup = meta_setup("--model", model, "--opt", opt, "--mixup", 0.8, "--cutmix", 1.0, "--drop_path_rate", 0.1,
                       "--config_overrides", overrides)  # fmt: skip
    setup.model.train()
    loss, unreadable = train_step(setup, setup.train_loader.batches(0), 0)
    assert loss.device.type == "meta" and unreadable == 0


def test_a_step_that_waits_would_be_seen(meta_setup, monkeypatch):
    def reading(self, model, pixel_values, labels, mix):
        loss = call(self, model, pixel_values, labels, mix)
        return loss * (2 if float(loss.detach()) > 9 else 1)

    call = Objective.__call__
    monkeypatch.setattr(Objective, "__call__", reading)
    setup = meta_setup("--opt", "sgd")
    with pytest.raises(RuntimeError, match="meta tensors"):
        train_step(setup, setup.train_loader.batches(0), 0)


def test_processes_exchange_figures_every_few_steps(tmp_path, monkeypatch):
    """Of an epoch of 6 steps, at the 4th and at the last; and a flag after the evaluation."""
    reduced, logged = [], []
    reduce, log = Accelerator.reduce, Accelerator.log
    monkeypatch.setattr(
        Accelerator, "reduce", lambda self, values, how: reduced.append(len(values)) or reduce(self, values, how)
    )
    monkeypatch.setattr(
        Accelerator, "log", lambda self, values, step: logged.append((step, values)) or log(self, values, step=step)
    )
    run = finetune(*QUICK, "--num_train_epochs", 1, "--logging_steps", 4, "--output_dir", tmp_path / "run")
    assert reduced == [4 + 2, 2 + 2, 1]
    losses = {step: values["train_loss"] for step, values in logged if "train_loss" in values}
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert metrics_of(run)["history"][0]["train_loss"] == pytest.approx(sum(losses.values()) / 6, rel=1e-12)


def test_nothing_is_saved_after_a_loss_that_is_not_finite(tmp_path, monkeypatch):
    """Step 3 fails, steps are read at the 4th: before the checkpoint of that step."""

    def broken(self, model, pixel_values, labels, mix):
        broken.calls += 1
        return call(self, model, pixel_values, labels, mix) * (math.nan if broken.calls == 3 else 1)

    call, broken.calls = Objective.__call__, 0
    monkeypatch.setattr(Objective, "__call__", broken)
    with pytest.raises(TrainingError, match="the loss is nan at step 3, .*checkpoint-0000002 is the last good"):
        finetune(*QUICK, "--checkpointing_steps", 2, "--output_dir", tmp_path / "run")
    assert [folder.name for folder in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-0000002"]
