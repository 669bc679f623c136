import importlib.util
from pathlib import Path

import pytest

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
    assert row == "| `cskaformer-s18` | 28.98 | 28 | 224 | 6.4 | 4.1 | 33.6 |  |"
    assert not blank
    assert note.startswith("- `cskaformer-s18`: the published MACs leave out the grouped convolution")


@pytest.mark.parametrize(
    "argv, message", [([], "nothing to measure: pass --count"), (["--count", "--models", "x9"], "is called 'x9'")]
)
def test_wrong_arguments(argv, message, capsys):
    with pytest.raises(SystemExit):
        load_script().main(argv)
    assert message in capsys.readouterr().err
