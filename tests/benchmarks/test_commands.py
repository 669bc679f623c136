"""The commands of `scripts/benchmark.py`."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from transformers import ViTConfig, ViTForImageClassification

from sk_transformers import create_model
from sk_transformers.benchmarks import resolution, scaling, speed, startup
from sk_transformers.benchmarks.commands import main

from .test_speed import MIXER

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"


def rows(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_counts_are_a_markdown_table(capsys):
    main(["count", "--models", "cskaformer-s18"])
    header, rule, row, blank, note = capsys.readouterr().out.splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    assert row == "| `cskaformer-s18` | 28.98 | 28 | 224 | 6.40 | 4.1 | 33.6 |  |"
    assert not blank
    assert note.startswith("- `cskaformer-s18`: the published MACs leave out the grouped convolution")


def test_multiply_adds_of_a_detector_are_told_by_parts(capsys):
    main(["count", "--mask_rcnn", "64x96", "--models", "skaformer-nano"])
    _, _, resized, windows = rows(capsys.readouterr().out)[-4:]
    assert (resized[0], windows[0]) == ("skaformer-nano, interpolate", "skaformer-nano, window")
    boxes = 1000 * (256 * 49 * 1024 + 1024**2 + 1024 * 81 * 5) / 1e9  # two layers, classes and boxes
    masks = 100 * (196 * 4 * 9 * 256**2 + 784 * (256**2 + 256 * 81)) / 1e9
    assert float(windows[2]) == float(resized[2]) == pytest.approx(boxes + masks, abs=1)  # and a small pyramid
    with pytest.raises(ValueError, match="--mask_rcnn: there is no detector over skvit-nano"):
        main(["count", "--mask_rcnn", "64", "--models", "skvit-nano*"])


def test_resolutions_are_a_markdown_table(capsys, monkeypatch):
    monkeypatch.setattr(resolution, "SIZES", ((64, 64), (128, 96)))
    main(["resolution", "--rounds", "1", "--models", "cskaformer-nano"])
    header, _, small, large = rows(capsys.readouterr().out)
    assert [small[0], large[0]] == ["64x64", "128x96"]
    assert len(header) == len(small) == len(large) == 7
    assert small[1] == small[4]  # at the trained size there is one window
    with pytest.raises(ValueError, match="--models skvit-tiny.*: expected a hybrid network"):
        main(["resolution", "--models", "skvit-tiny"])


def test_speed_writes_json_as_it_goes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "COMPARISONS", (MIXER,))
    monkeypatch.setattr("sk_transformers.benchmarks.measure.MATMUL_SIZES", (64,))
    file = tmp_path / "speed.json"
    main(["speed", "--models", "mixer", "--rounds", "1", "--batch_sizes", "3", "--output", str(file)])
    figures = json.loads(file.read_text())
    assert [result["dtype"] for result in figures["results"]] == ["float32", "bfloat16"]
    assert "versions" in figures["machine"]
    assert capsys.readouterr().out.count("| mixer | plain |") == 4  # as they come, and in the table
    main(["profile", "--models", "mixer", "--rounds", "1", "--dtypes", "float32"])
    assert "| matrix products |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--batch_sizes", "5", "7"], "--batch_sizes 5 7: expected some of 3"),
        (["--models", "mixer", "--tasks", "training"], "--tasks training: mixer is measured in inference only"),
        (["--models", "x9"], "--models x9: expected one of those compared: mixer"),
    ],
)
def test_what_is_not_compared_is_refused(options, message, monkeypatch):
    monkeypatch.setattr(speed, "COMPARISONS", (MIXER,))
    with pytest.raises(ValueError, match=message):
        main(["speed", *options])


def test_scaling_writes_json_and_a_plot(tmp_path, capsys, monkeypatch):
    points = [scaling.Point("pixels", "a", n, n**2 / 1e6, n, n**2) for n in (10, 20)]
    monkeypatch.setattr(scaling, "measure_scaling", lambda rounds: iter(points))
    main(["scaling", "--output", str(tmp_path / "scaling.json"), "--plot", str(tmp_path / "scaling.png")])
    figures = json.loads((tmp_path / "scaling.json").read_text())
    assert scaling.from_json(figures) == points
    assert figures["exponents"][0]["seconds"] == pytest.approx(2)
    assert "| pixels | a | 10 and 20 | 2.00 | 1.00 | 2.00 |" in capsys.readouterr().out
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_startup_is_measured(capsys, monkeypatch):
    monkeypatch.setattr(startup, "create_model", lambda name: create_model("skvit-nano-patch4-32"))
    monkeypatch.setattr(startup, "import_seconds", lambda rounds: 0.0071)
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    monkeypatch.setattr(startup, "transformers_vit_base", lambda: ViTForImageClassification(config))
    main(["startup", "--rounds", "1"])
    imported, loaded = capsys.readouterr().out.splitlines()[-2:]
    assert imported == "import sk_transformers, after transformers: 7 ms"
    assert "; ratio " in loaded


@pytest.mark.slow
def test_the_import_is_measured_in_a_process_of_its_own():
    assert 0 < startup.import_seconds(1) < 60


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "the following arguments are required: COMMAND"),
        (["speed", "--rounds", "0"], "argument --rounds: 0 is not a whole number of at least 1"),
        (["speed", "--dtypes", "int8"], "invalid choice: 'int8'"),
        (["scaling", "--output", "nowhere/a.json"], "nowhere/a.json cannot be written: there is no folder nowhere"),
        (
            ["dense", "--sizes", "800x"],
            "argument --sizes: 800x is not a number of pixels, at least 1, nor HEIGHTxWIDTH",
        ),
        (["training", "--workers", "-1"], "argument --workers: -1 is not a whole number of at least 0"),
    ],
)
def test_wrong_arguments(argv, message, capsys):
    with pytest.raises(SystemExit):
        main(argv)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, message",
    [
        (["count", "--models", "x9"], "error: --models x9: no network of the zoo is called so"),
        (None, "error: .*: benchmarks need a checkout of the project"),  # the package as a wheel installs it
    ],
)
def test_the_script_ends_with_a_sentence(argv, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *(argv or ["count"])])
    if argv is None:
        for name in [name for name in sys.modules if name.startswith("sk_transformers.benchmarks")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "sk_transformers.benchmarks", None)
    with pytest.raises(SystemExit, match=message):
        runpy.run_path(str(SCRIPT), run_name="__main__")
