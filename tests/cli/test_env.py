"""A bug report has what it needs, and nothing that is the reporter's alone."""

import getpass
import platform
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from sk_transformers import __version__, provenance
from sk_transformers.cli.env import main


def test_env(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    main([])
    printed = capsys.readouterr().out
    facts = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert facts["sk_transformers"].startswith(__version__)
    assert facts["python"] == platform.python_version()
    assert all(facts[name] == version(name) for name in ("torch", "transformers", "timm"))
    assert facts["threads"].startswith(str(torch.get_num_threads()))
    assert facts["OMP_NUM_THREADS"] == "3"
    assert "hf_secret" not in printed and str(Path.home()) not in printed
    if getpass.getuser() != "root":
        assert getpass.getuser() not in printed


def test_libraries_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(provenance, "LIBRARIES", ("torch", "no-such-library"))
    assert provenance.provenance()["versions"] == {"python": platform.python_version(), "torch": version("torch")}


@pytest.mark.parametrize(
    "program, launched, arguments, command",
    [
        ("/env/bin/sk-transformers", False, ["train", "--seed", "1"], "sk-transformers train --seed 1"),
        ("/p/sk_transformers/cli/train.py", True, ["--seed", "1"],
         "accelerate launch -m sk_transformers.cli.train --seed 1"),
        ("/p/sk_transformers/cli/export_onnx.py", False, ["a", "b"], "sk-transformers export-onnx a b"),
        ("/p/sk_transformers/cli/main.py", False, ["list"], "sk-transformers list"),
        ("/p/scripts/finetune.py", True, [], "accelerate launch scripts/finetune.py"),
        ("/p/scripts/benchmark.py", False, ["--count"], "python scripts/benchmark.py --count"),
        ("/usr/bin/other", False, [], "other"),
        ("/env/bin/sk-transformers", False, ["train", "--dataset", "/home/me/my flowers", "--output_dir=/home/me/x"],
         "sk-transformers train --dataset 'my flowers' --output_dir=x"),
        ("/env/bin/sk-transformers", False, ["train", "--resume_from_checkpoint", "latest", "--seed", "1"],
         "sk-transformers train --seed 1"),
    ],
)  # fmt: skip
def test_command_line(program, launched, arguments, command, monkeypatch):
    monkeypatch.setattr("sys.argv", [program, *arguments])
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launched:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert provenance.command_line() == command
