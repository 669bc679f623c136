"""`sk-transformers` finds its commands, quickly, and answers what it cannot do in one sentence."""

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from sk_transformers import __version__
from sk_transformers.cli.errors import exit_on_user_error
from sk_transformers.cli.main import COMMANDS, main

HEAVY = ("torch", "transformers", "accelerate", "datasets", "numpy", "matplotlib", "rich")


def imported_by(arguments):
    """Return which of the libraries that take long a command imports, and what it prints."""
    code = (
        f"import sys; from sk_transformers.cli.main import main\n"
        f"try: main({arguments})\n"
        f"except SystemExit as end: assert not end.code\n"
        f"sys.exit(' '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode in (0, 1)
    return done.stderr.strip(), done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["list"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_and_names_do_not_wait_for_torch(arguments):
    heavy, printed = imported_by(arguments)
    assert heavy == ""
    if arguments[0] != "list" or len(arguments) > 1:
        command = "COMMAND" if arguments == ["--help"] else arguments[0]
        assert printed.startswith(f"usage: sk-transformers {command}")


def test_help_names_every_command(capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()
    for name, text in COMMANDS.items():
        assert any(line.split() == [name, *text.split()] for line in lines)
        assert find_spec(f"sk_transformers.cli.{name.replace('-', '_')}") is not None


def test_every_module_with_a_main_is_a_command():
    folder = import_module("sk_transformers.cli").__path__[0]
    found = subprocess.run(["grep", "-l", "^def main", "-r", folder, "--include=*.py"], capture_output=True, text=True)
    names = {line.rpartition("/")[2].removesuffix(".py").replace("_", "-") for line in found.stdout.splitlines()}
    assert names - {"main"} == set(COMMANDS)


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"sk-transformers {__version__}\n"


@pytest.mark.parametrize(
    "command, sentence",
    [
        ("trian", "error: unknown command 'trian'. Did you mean 'train'?\n"),
        ("export_onnx", "error: unknown command 'export_onnx'. Did you mean 'export-onnx' or 'export'?\n"),
        ("zzz", f"error: unknown command 'zzz'. Expected one of {', '.join(COMMANDS)}.\n"),
    ],
)
def test_unknown_commands(command, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        main([command])
    assert end.value.code == 2
    assert capsys.readouterr().err == sentence


@pytest.mark.parametrize(
    "module, sentence",
    [
        ("gradio", "error: No module named 'gradio': pip install 'sk-transformers[demo]'."),
        ("sklearn.metrics", "error: No module named 'sklearn.metrics': pip install 'sk-transformers[train]'."),
        ("mine", "error: No module named 'mine'"),
    ],
)
def test_a_missing_module_is_named_with_the_extra_that_installs_it(module, sentence, monkeypatch):
    declared = ["torch>=2.7", 'scikit-learn>=1.5; extra == "train"', "gradio>=6.0; extra == 'demo'"]
    monkeypatch.setattr("sk_transformers.cli.errors.requires", lambda name: declared)
    with pytest.raises(SystemExit) as end, exit_on_user_error():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert str(end.value) == sentence


def test_control_c_ends_a_command_without_a_traceback():
    with pytest.raises(SystemExit) as end, exit_on_user_error():
        raise KeyboardInterrupt
    assert end.value.code == 130
