"""`scripts/demo.py` answers what does not fit in one sentence, before it serves or writes anything."""

import importlib.util
import re
import socket
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "demo.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.main


@pytest.mark.parametrize(
    "options, said",
    [
        ("--images {empty}", "empty has no images: expected files such as bee.png."),
        ("--port {taken}", "--port {taken} is taken: choose another by --port."),
        ("--save_space {full}", "{full} exists already: nothing was written."),
    ],
)
def test_wrong_options(options, said, demo, repos, digits, tmp_path):
    (tmp_path / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {"empty": tmp_path / "empty", "taken": server.getsockname()[1], "full": digits[0].parent}
        with pytest.raises(SystemExit, match=f"^error: .*{re.escape(said.format(**names))}") as error:
            demo([str(repos[0]), *options.format(**names).split()])
    assert "\n" not in str(error.value)


def test_ports_that_are_none(demo, repos, capsys):
    with pytest.raises(SystemExit):
        demo([str(repos[0]), "--port", "99999"])
    assert capsys.readouterr().err.endswith("error: --port is 99999, expected 1 to 65535\n")
