"""The comparison of training loops: that it compares like with like."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from sk_transformers.benchmarks import training_speed
from sk_transformers.benchmarks.commands import main
from sk_transformers.benchmarks.example_images import write_images
from sk_transformers.benchmarks.training_speed import Task, fresh_model, our_setup

TASK = Task("skvit-nano-patch4-32", batch_size=4, image_size=32, steps=4, images="digits")


@pytest.fixture(autouse=True)
def no_accelerator():
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.mark.slow
def test_each_loop_trains_the_same_network_on_every_image(tmp_path, monkeypatch):
    """Counted where the batches reach the network."""
    seen = {}

    def count(task, folder):
        model = fresh_model(task, folder)
        seen.setdefault("start", model.state_dict()["classifier.weight"].clone())
        torch.testing.assert_close(model.state_dict()["classifier.weight"], seen["start"])
        batches = seen.setdefault("batches", [])
        model.register_forward_pre_hook(
            lambda module, args, kwargs: batches.append(tuple(kwargs["pixel_values"].shape)), with_kwargs=True
        )
        seen.setdefault("models", []).append(model)
        return model

    monkeypatch.setattr(training_speed, "fresh_model", count)
    write_images(tmp_path, TASK.images, TASK.batch_size * TASK.steps)
    for make in (training_speed.trainer_loop, training_speed.timm_loop):
        make(TASK, tmp_path)(lambda: None)
    assert seen["batches"] == [(4, 3, 32, 32)] * 8
    for model in seen["models"]:
        assert not torch.equal(model.classifier.weight, seen["start"])

    setup = our_setup(TASK, tmp_path)
    assert setup.steps_per_epoch == TASK.steps and setup.data.train_images == 16
    assert sum(p.numel() for p in setup.model.parameters()) == sum(p.numel() for p in seen["models"][0].parameters())


@pytest.mark.slow
def test_the_command_leaves_figures_that_agree(tmp_path, capsys):
    options = ["--images", "photos", "--model", TASK.model, "--image_size", 32, "--batch_size", 2, "--steps", 5,
               "--rounds", 2, "--output", tmp_path / "figures.json"]  # fmt: skip
    main(["training", *map(str, options)])
    figures = json.loads((tmp_path / "figures.json").read_text())
    speeds = figures["images_per_second"]
    assert set(speeds) == {"sk_transformers", "transformers", "timm"}
    for name, ratio in figures["ratio"].items():
        pairs = list(zip(speeds["sk_transformers"], speeds[name]))
        assert len(pairs) == 2
        assert ratio == pytest.approx(sum(ours / other for ours, other in pairs) / 2)
    assert f"| {figures['median']['timm']:.1f} |" in capsys.readouterr().out


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="--steps is 3, expected more than the 3 of a round that are not timed"):
        training_speed.compare_loops(Task("skvit-nano-patch4-32", 4, 32, steps=3), rounds=1)
