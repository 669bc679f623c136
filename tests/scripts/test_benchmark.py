import importlib.util
import json
from pathlib import Path

import pytest
from transformers import ViTConfig, ViTForImageClassification

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"


def load_script():
    spec = importlib.util.spec_from_file_location("benchmark", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_counts_are_a_markdown_table(capsys):
    load_script().main(["--count", "--models", "cskaformer-s18"])
    header, rule, row, blank, note = capsys.readouterr().out.splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    assert row == "| `cskaformer-s18` | 28.98 | 28 | 224 | 6.40 | 4.1 | 33.6 |  |"
    assert not blank
    assert note.startswith("- `cskaformer-s18`: the published MACs leave out the grouped convolution")


def test_resolutions_are_a_markdown_table(capsys, monkeypatch):
    script = load_script()
    monkeypatch.setattr(script, "RESOLUTIONS", ((64, 64), (128, 96)))
    script.main(["--resolution", "--rounds", "1", "--models", "cskaformer-nano"])
    *_, small, large = (line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|"))
    assert [row[0].strip() for row in (small, large)] == ["64x64", "128x96"]
    assert small[1] == small[4]  # at the trained size there is one window
    assert all(float(cell) >= 0 for cell in [*small[1:], *large[1:]])


def test_speed_writes_json_as_it_goes(tmp_path, capsys, monkeypatch):
    from sk_transformers.benchmarks import speed
    from tests.benchmarks.test_speed import MIXER

    monkeypatch.setattr(speed, "CONTESTS", (MIXER,))
    monkeypatch.setattr("sk_transformers.benchmarks.measure.MATMUL_SIZES", (64,))
    file = tmp_path / "speed.json"
    script = load_script()
    script.main(["--speed", "--models", "mixer", "--rounds", "1", "--batch_sizes", "3", "--output", str(file)])
    figures = json.loads(file.read_text())
    assert [result["dtype"] for result in figures["results"]] == ["float32", "bfloat16"]
    assert "versions" in figures["machine"]
    assert capsys.readouterr().out.count("| mixer | plain |") == 4  # as they come, and in the table
    script.main(["--speed", "--profile", "--models", "mixer", "--rounds", "1", "--dtypes", "float32"])
    assert "| matrix products |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--batch_sizes 5 7: expected of 3"):
        script.main(["--speed", "--batch_sizes", "5", "7"])
    with pytest.raises(SystemExit, match="--tasks training: mixer is measured in inference only"):
        script.main(["--speed", "--models", "mixer", "--tasks", "training"])
    with pytest.raises(SystemExit, match="--models x9 is none of those measured: mixer"):
        script.main(["--speed", "--models", "x9"])


def test_startup_is_measured(capsys, monkeypatch):
    from sk_transformers import create_model
    from sk_transformers.benchmarks import startup

    monkeypatch.setattr(startup, "create_model", lambda name: create_model("skvit-nano-patch4-32"))
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    monkeypatch.setattr(startup, "transformers_vit_base", lambda: ViTForImageClassification(config))
    load_script().main(["--startup", "--rounds", "1"])
    imported, loaded = capsys.readouterr().out.splitlines()[-2:]
    assert imported.startswith("import sk_transformers, after transformers: ") and imported.endswith(" ms")
    assert "; ratio " in loaded


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "nothing to measure: pass --count"),
        (["--count", "--models", "x9"], "is called 'x9'"),
        (["--speed", "--rounds", "0"], "--rounds is 0, expected at least 1"),
        (["--speed", "--dtypes", "int8"], "invalid choice: 'int8'"),
        (["--speed", "--output", "nowhere/a.json"], "nowhere/a.json cannot be written: there is no folder nowhere"),
    ],
)
def test_wrong_arguments(argv, message, capsys):
    with pytest.raises(SystemExit):
        load_script().main(argv)
    assert message in capsys.readouterr().err
