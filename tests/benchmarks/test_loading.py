"""The comparison of loaders: that all load the same kind of batches, and what is made of their figures."""

import json

import pytest
import torch

from sk_transformers.benchmarks import loading
from sk_transformers.benchmarks.commands import main
from sk_transformers.benchmarks.example_images import write_images
from sk_transformers.benchmarks.loading import LOADERS, LoadingTask, load_batches, to_text
from sk_transformers.benchmarks.measure import describe_machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, "digits", 24)
    return folder


@pytest.mark.parametrize("policy", loading.AUGMENTATIONS.values())
def test_every_loader_gives_normalized_batches_of_the_same_shape(folder, policy):
    for make in LOADERS.values():
        batches = list(make(LoadingTask(folder, policy, image_size=16, batch_size=8, batches=1, workers=0))())
        pixels, labels = zip(
            *((batch["pixel_values"], batch["labels"]) if isinstance(batch, dict) else batch for batch in batches)
        )
        assert [part.shape for part in pixels] == [(8, 3, 16, 16)] * 3
        assert all(part.dtype == torch.float32 for part in pixels)
        assert -2.2 < torch.cat(pixels).min() < -1 < torch.cat(pixels).max() < 2.7  # black and white, normalized
        assert sorted(torch.cat(labels).tolist()) == sorted(list(range(10)) * 2 + [0, 1, 2, 3])


def test_the_command_leaves_figures_and_a_table(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loading, "measure_step", lambda name, size: 97.0)
    options = ["--dataset", folder, "--image_size", 16, "--batch_size", 4, "--batches", 1, "--rounds", 2,
               "--workers", 0, "--output", tmp_path / "loading.json"]  # fmt: skip
    main(["loading", *map(str, options)])
    figures = json.loads((tmp_path / "loading.json").read_text())
    assert [(one["loader"], len(one["milliseconds"])) for one in figures["loading"]] == [(n, 2) for n in LOADERS] * 2
    assert all(time > 0 for one in figures["loading"] for time in one["milliseconds"])
    assert to_text(figures) in capsys.readouterr().out


def test_a_process_that_loads_is_timed_apart(folder):
    task = LoadingTask(folder, None, image_size=64, batch_size=1, batches=15, workers=1)
    loads, receives = load_batches(task, LOADERS["sk_transformers"](task))
    assert receives > 0 and loads >= 0  # in hundredths of a second


def test_the_table_says_images_a_second_and_the_share_of_a_step():
    def figures(loader, workers, *milliseconds):
        return {"augmentation": "crop", "loader": loader, "workers": workers, "milliseconds": list(milliseconds)}

    text = to_text(
        {
            "loading": [
                figures("sk_transformers", 0, 2.0, 4.0, 2.0),
                figures("timm", 0, 3.0, 8.0, 5.0),
                figures("sk_transformers", 1, 4.0, 4.0, 4.0),
                figures("timm", 1, 8.0, 8.0, 8.0),
            ],
            "step": {"model": "a", "milliseconds": 38.0},
            "provenance": {"command": "benchmark"},
            "machine": describe_machine(("torch",)),
        }
    )
    assert "| crop | sk_transformers | 500 | 1.00 | 250 | 1.00 |" in text
    assert "| crop | timm | 200 | 2.00 | 125 | 2.00 |" in text
    assert "its share of both together): crop 2.0 ms (5.0%).\n\n`benchmark`: " in text


def test_too_few_images_are_refused(folder):
    task = LoadingTask(folder, None, image_size=16, batch_size=8, batches=9, workers=0)
    with pytest.raises(ValueError, match="a loader gave 1 batches of 9: give --dataset more images"):
        load_batches(task, LOADERS["timm"](task))


def test_a_folder_without_training_images_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["loading", "--dataset", str(tmp_path)])
    assert f"there is no folder {tmp_path / 'train'}" in capsys.readouterr().err
