"""Trained classifiers on images that are shifted, enlarged or corrupted."""

import json

import numpy as np
import pytest
import torch
from transformers import ViTImageProcessor

from sk_transformers.benchmarks.commands import main
from sk_transformers.benchmarks.displacement import (
    DIRECTIONS,
    Answers,
    Condition,
    measure_displacements,
    pixels_under,
    shifted,
    summarize,
    to_table,
)
from sk_transformers.data.options import DataOptions
from sk_transformers.hub.export import export
from tests.support.image_files import write_images
from tests.support.small_models import small_model

ROWS = np.arange(6)[:, None, None]
PIXELS = np.broadcast_to(10 * ROWS + np.arange(5)[None, :, None], (6, 5, 3)).astype(np.uint8)  # tens are rows


def test_a_shift_moves_the_image_and_reflects_it_at_the_border():
    moved = shifted(PIXELS, 2, -1)[..., 0]
    assert moved.shape == (6, 5)
    assert moved[2:, :4].tolist() == PIXELS[:4, 1:, 0].tolist()  # two down, one to the left
    assert moved[0].tolist() == [21, 22, 23, 24, 23]
    assert moved[1].tolist() == [11, 12, 13, 14, 13]
    for (down, right), variant in zip(DIRECTIONS, pixels_under(Condition("shift", 1), PIXELS, None)):
        inside = np.roll(PIXELS, (down, right), axis=(0, 1))[1:-1, 1:-1]
        assert (variant[1:-1, 1:-1] == inside).all()


def test_an_enlarged_image_is_that_image():
    flat = np.full((32, 32, 3), 77, np.uint8)
    assert (pixels_under(Condition("size", 40), flat, None) == np.full((1, 40, 40, 3), 77)).all()
    ramp = np.broadcast_to(4 * np.arange(32)[None, :, None], (32, 32, 3)).astype(np.uint8)
    row = pixels_under(Condition("size", 64), ramp, None)[0, 5, 8:-8, 0].astype(int)
    assert np.abs(row - (4 * (np.arange(8, 56) + 0.5) / 2 - 2)).max() <= 1  # centers of pixels, half as far apart


def test_figures_by_hand():
    plain = Answers(torch.tensor([1.0, 1, 0, 1]), torch.tensor([0.95, 0.95, 0.95, 0.95]))
    moved = Answers(torch.tensor([0.5, 1, 0.25, 0]), torch.tensor([0.5, 0.5, 0.5, 0.5]))
    noisy = Answers(torch.tensor([0.0, 1, 0, 0]), torch.tensor([0.9, 0.9, 0.9, 0.9]))
    figures = summarize(
        "folder/one", {Condition("none"): plain, Condition("shift", 2): moved, Condition("fog", 3): noisy}
    )
    differences = np.array([-0.5, 0, 0.25, -1])
    assert (figures["network"], figures["images"], figures["top1"], figures["size"]) == ("one", 4, 0.75, {})
    assert figures["shift"]["2"]["change"] == pytest.approx(differences.mean())
    assert figures["shift"]["2"]["interval"] == pytest.approx(1.96 * differences.std(ddof=1) / 2)
    assert figures["corruptions"] == {"fog": {"3": 0.25}} and figures["mean_error"] == 0.75
    assert figures["calibration_error"] == pytest.approx(0.2)
    assert figures["corrupted_calibration_error"] == pytest.approx(0.65)
    assert to_table([figures]).splitlines()[-1] == "| `one` | 75.0 | -31.2 ± 54.3 | 25.0 | 20.0 | 65.0 |"


def test_networks_answer_to_the_same_images(tmp_path, capsys):
    folder = write_images(tmp_path / "images", images=4)
    data = DataOptions(str(folder), train_val_split=0.5)
    classes = {"num_labels": 2, "id2label": {0: "dog", 1: "cat"}, "label2id": {"dog": 0, "cat": 1}}
    repos = []
    for name in ("skvit", "skaformer"):
        model = small_model(name, image_size=32, **classes)
        repos.append(str(export(model, ViTImageProcessor(size={"height": 32, "width": 32}), tmp_path / name)))
    conditions = [Condition("none"), Condition("shift", 0), Condition("size", 48), Condition("size", 32)]
    answered = dict(measure_displacements(repos, data, 6, conditions))
    for plain, still, same in zip(*(answered[conditions[index]] for index in (0, 1, 3))):
        torch.testing.assert_close(still, plain)
        torch.testing.assert_close(same, plain)
    output = tmp_path / "figures.json"
    command = ["--dataset", str(folder), "--images", "2", "--severities", "--output", str(output)]
    main(["displacement", repos[0], *command])
    main(["displacement", repos[1], *command, "--append"])
    runs = json.loads(output.read_text())["runs"]
    assert [figures["network"] for run in runs for figures in run["networks"]] == ["skvit", "skaformer"]
    assert "| `skvit` |" in (text := capsys.readouterr().out.split("\n\n")[-1]) and "| `skaformer` |" in text
    other = ViTImageProcessor(size={"height": 32, "width": 32}, resample=0)
    export(small_model("skvit", image_size=32, **classes), other, tmp_path / "other")
    with pytest.raises(ValueError, match="other sees other pixels than .*skvit: compare networks of one image"):
        list(measure_displacements([repos[0], str(tmp_path / "other")], data, 6, conditions))
