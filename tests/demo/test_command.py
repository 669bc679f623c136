"""`sk-transformers demo` refuses in one sentence, before it serves or writes anything."""

import re
import socket

import pytest

from sk_transformers.cli.demo import main


@pytest.mark.parametrize(
    "options, said",
    [
        ("--images {empty}", "empty has no images: expected files such as bee.png."),
        ("--port {taken}", "--port {taken} is taken: choose another by --port."),
        ("--save_space {full}", "{full} exists already: nothing was written."),
    ],
)
def test_wrong_options(options, said, repos, digits, tmp_path):
    (tmp_path / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {"empty": tmp_path / "empty", "taken": server.getsockname()[1], "full": digits[0].parent}
        with pytest.raises(SystemExit, match=f"^error: .*{re.escape(said.format(**names))}") as error:
            main([str(repos[0]), *options.format(**names).split()])
    assert "\n" not in str(error.value)


def test_ports_that_do_not_exist(repos, capsys):
    with pytest.raises(SystemExit):
        main([str(repos[0]), "--port", "99999"])
    assert capsys.readouterr().err.endswith("error: --port is 99999, expected 1 to 65535\n")
