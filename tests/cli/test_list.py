"""What `sk-transformers list` names is what is there, in a form that other programs take."""

from pathlib import Path

import pytest
import yaml

from sk_transformers import create_model, list_models
from sk_transformers.cli.list import main


def lines(capsys, *arguments):
    main(arguments)
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_networks(capsys):
    rows = lines(capsys)
    assert [row[0] for row in rows] == list_models()
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["cskvit-small-patch4-32"] == ["32", "conv_static_key"]
    assert by_name["skaformer-s18"] == ["224", "separable_conv, static_key, attention"]


def test_parameters_are_those_of_the_network(capsys):
    (row,) = lines(capsys, "cskvit-nano", "--parameters")
    model = create_model("cskvit-nano-patch4-32")
    assert row[-1] == f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f}"


@pytest.mark.parametrize(
    "option, name, key", [("--recipes", "digits", "dataset"), ("--accelerate", "fsdp", "fsdp_config")]
)
def test_files(option, name, key, capsys):
    rows = lines(capsys, option)
    files = {row[0]: row[1] for row in rows}
    assert all(row[2] for row in rows), "a file without a comment at its head"
    assert all(yaml.safe_load(Path(file).read_text()) for file in files.values())
    assert lines(capsys, option, name) == [[files[name]]]
    assert key in yaml.safe_load(Path(files[name]).read_text())


def test_a_terminal_gets_a_table(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")  # without colors
    header, *rows = lines(capsys, "skaformer")
    assert header[0].split()[:3] == ["model", "image", "size"]
    assert any(row[0].startswith("skaformer-s18 ") for row in rows)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["nope"], "no network of the zoo fits 'nope'"),
        (["--accelerate", "fdsp"], "unknown configuration 'fdsp'. Did you mean 'fsdp'?"),
        (["--recipes", "zzz"], "unknown recipe 'zzz'. Expected one of ade20k, camvid, cifar10, "),
    ],
)
def test_what_is_not_there(arguments, sentence):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert str(end.value).startswith(f"error: {sentence}")
