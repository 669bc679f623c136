"""Files in every wrapping that training runs leave them in, and files that cannot be read."""

import argparse
import json
import subprocess
import sys
from pathlib import PurePosixPath

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification

from sk_transformers import SKFormerConfig, SKFormerForImageClassification
from sk_transformers.cli import convert as command
from sk_transformers.conversion import convert

from ..support.networks import ROOT, drawn, logits, metaformer_state_dict

MIXERS = ["separable_conv", "conv_static_key", "static_key", "attention"]


def network(seed=0):
    config = SKFormerConfig(
        image_size=64, depths=[1] * 4, hidden_sizes=[8, 8, 16, 32], head_dim=[8, 4, 8, 32], token_mixers=MIXERS,
        num_labels=3,
    )  # fmt: skip
    return drawn(SKFormerForImageClassification(config), seed).float()


def state_dict(seed=0):
    return metaformer_state_dict(network(seed))


def with_prefix(tensors):
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
WRAPPINGS = {
    "bare.pth": lambda: state_dict(),
    "ddp.pth": lambda: with_prefix(state_dict()),
    "run.pth.tar": lambda: {
        "epoch": 3,
        "arch": "caformer",
        "args": argparse.Namespace(lr=1),
        "state_dict": state_dict(),
        "metric": 0.5,
    },
    "ddp-run.pth.tar": lambda: {"state_dict": with_prefix(state_dict()), "state_dict_ema": state_dict(1)},
    "model.bin": lambda: {"model": state_dict()},
}


@pytest.mark.parametrize("file", WRAPPINGS)
def test_wrappings(file, tmp_path):
    torch.save(WRAPPINGS[file](), tmp_path / file)
    model = convert(str(tmp_path / file), tmp_path / "out", license="mit").model
    torch.testing.assert_close(logits(model, IMAGES), logits(network(), IMAGES))


@pytest.mark.slow
def test_the_card_says_where_the_weights_come_from(tmp_path):
    torch.save(state_dict(), tmp_path / "source.pth")
    convert(str(tmp_path / "source.pth"), tmp_path / "out", license="mit")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Converted from: source.pth, in the names of MetaFormer" in card
    assert "no trained weights" not in card
    assert str(tmp_path) not in card


def test_safetensors(tmp_path):
    save_file(state_dict(), tmp_path / "source.safetensors")
    model = convert(str(tmp_path / "source.safetensors"), tmp_path / "out", license="mit").model
    torch.testing.assert_close(logits(model, IMAGES), logits(network(), IMAGES))


def test_averaged_weights(tmp_path):
    run = {"state_dict": with_prefix(state_dict()), "state_dict_ema": with_prefix(state_dict(seed=1))}
    torch.save(run, tmp_path / "source.pth.tar")
    model = convert(str(tmp_path / "source.pth.tar"), tmp_path / "out", use_ema=True, license="mit").model
    torch.testing.assert_close(logits(model, IMAGES), logits(network(seed=1), IMAGES))
    assert not torch.allclose(logits(model, IMAGES), logits(network(), IMAGES), atol=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_dtype(dtype, tmp_path):
    torch.save(state_dict(), tmp_path / "source.pth")
    command.main([str(tmp_path / "source.pth"), str(tmp_path / "out"), "--dtype", dtype, "--license", "mit"])
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert model.dtype == getattr(torch, dtype)


def write(content):
    return lambda path: torch.save(content() if callable(content) else content, path)


def write_part(path):
    torch.save(state_dict(), path)
    path.write_bytes(path.read_bytes()[:-5000])


def write_part_of_safetensors(path):
    save_file(state_dict(), path)
    path.write_bytes(path.read_bytes()[:-5000])


def changed(**tensors):
    return {**state_dict(), **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}


def without(name):
    return {key: tensor for key, tensor in state_dict().items() if key != name}


REFUSED = {  # file, what writes it, hints, what the error says
    "missing": ("source.pth", lambda path: None, [], "does not exist"),
    "truncated": ("source.pth", write_part, [], "is not a checkpoint, or a damaged one"),
    "truncated safetensors": ("a.safetensors", write_part_of_safetensors, [], "is not a checkpoint, or a damaged one"),
    "text": ("source.pth", lambda path: path.write_text("hello"), [], "is not a checkpoint, or a damaged one"),
    "empty": ("source.pth", lambda path: path.touch(), [], "is not a checkpoint, or a damaged one"),
    "needs code": (
        "source.pth",
        write(lambda: {"state_dict": state_dict(), "folder": PurePosixPath("runs")}),
        [],
        "reading it takes pathlib.*PurePosixPath",
    ),
    "no dictionary": ("source.pth", write([1, 2]), [], "holds a list, expected a dictionary of tensors"),
    "no tensors": ("source.pth", write({"epoch": 3}), [], "is not a dictionary of tensors"),
    "no ema": ("source.pth", write(state_dict), ["--use_ema"], "has no averaged weights"),
    "only ema": ("source.pth", write(lambda: {"state_dict_ema": state_dict()}), [], "pass --use_ema"),
    "another network": ("source.pth", write({"conv1.weight": torch.ones(3)}), [], "are of no network known here"),
    "unknown tensor": ("source.pth", write(lambda: changed(extra=torch.ones(3))), [], "unknown: extra"),
    "missing tensor": ("source.pth", write(lambda: without("norm.bias")), [], "missing: skformer.layernorm.bias"),
    "no bias": (
        "source.pth",
        write(lambda: without("stages.1.0.token_mixer.to_k.bias")),
        [],
        "lacks skformer.stages.1.layers.0.mixer.k.bias",
    ),
    "no head": ("source.pth", write(lambda: without("head.fc2.weight")), [], "lacks classifier.weight"),
    "wrong shape": (
        "source.pth",
        write(lambda: changed(norm__bias=torch.ones(5))),
        [],
        r"of another shape: skformer.layernorm.bias \(5,\) for \(32,\)",
    ),
    "random": ("source.pth", write(state_dict), ["--random"], "--random is for timm:NAME"),
    "ema of timm": ("timm:caformer_s18", lambda path: None, ["--use_ema"], "--use_ema is for checkpoint files"),
    "image too small": ("source.pth", write(state_dict), ["--image_size", "8"], "number of at least 32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, tmp_path):
    file, write_source, hints, message = REFUSED[case]
    source = file if file.startswith("timm:") else str(tmp_path / "source" / file)
    (tmp_path / "source").mkdir()
    write_source(tmp_path / "source" / file)
    with pytest.raises(SystemExit, match=f"(?s)^error: .*{message}") as error:
        command.main([source, str(tmp_path / "out"), *hints])
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]  # nor a temporary folder


@pytest.mark.slow
def test_exit_status_of_the_script(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "convert_checkpoint.py", tmp_path / "none.pth", tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 1
    assert run.stderr.startswith(f"error: {tmp_path}/none.pth does not exist")
    assert run.stderr.count("\n") == 1


def test_nothing_is_overwritten(tmp_path):
    torch.save(state_dict(), tmp_path / "source.pth")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="exists already: nothing was written"):
        command.main([str(tmp_path / "source.pth"), str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


LABELS = {
    "labels.txt": "cat\ndog\nnewt\n",
    "list.json": json.dumps(["cat", "dog", "newt"]),
    "object.json": json.dumps({"1": "dog", "0": "cat", "2": "newt"}),
}


@pytest.mark.parametrize("file", LABELS)
def test_labels(file, tmp_path):
    torch.save(state_dict(), tmp_path / "source.pth")
    (tmp_path / file).write_text(LABELS[file])
    config = convert(str(tmp_path / "source.pth"), tmp_path / "out", labels=tmp_path / file, license="mit").model.config
    assert config.id2label == {0: "cat", 1: "dog", 2: "newt"}
    assert config.label2id == {"cat": 0, "dog": 1, "newt": 2}


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("labels.txt", "cat\ndog\n", "has 2 labels for a network of 3 classes"),
        ("labels.txt", "cat\ndog\ncat\n", "names 'cat' twice"),
        ("labels.txt", "cat\n\ndog\n", "something other than labels"),
        ("labels.json", "{", "is neither a JSON list, nor"),
        ("labels.json", '{"0": "cat", "2": "dog", "3": "newt"}', "is neither a JSON list, nor"),
        ("labels.json", "[1, 2, 3]", "something other than labels"),
    ],
)
def test_wrong_labels(file, text, message, tmp_path):
    torch.save(state_dict(), tmp_path / "source.pth")
    (tmp_path / file).write_text(text)
    with pytest.raises(SystemExit, match=message):
        command.main([str(tmp_path / "source.pth"), str(tmp_path / "out"), "--labels", str(tmp_path / file)])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("num_labels, first", [(1000, "tench, Tinca tinca"), (21841, "organism, being")])
def test_imagenet_heads_have_real_labels(num_labels, first, tmp_path):
    tensors = state_dict()
    tensors["head.fc2.weight"], tensors["head.fc2.bias"] = torch.randn(num_labels, 128), torch.randn(num_labels)
    torch.save(tensors, tmp_path / "source.pth")
    config = convert(str(tmp_path / "source.pth"), tmp_path / "out", license="mit").model.config
    assert config.id2label[0] == first
    assert len(config.label2id) == num_labels  # no two classes have one name


def test_a_source_without_a_license_needs_one(tmp_path):
    torch.save(state_dict(), tmp_path / "source.pth")
    unknown = "--license: the Hub knows no license .* did you mean apache"
    for hints, said in (([], "and pass --license"), (["--license", "appache-2.0"], unknown)):
        with pytest.raises(SystemExit, match=said):
            command.main([str(tmp_path / "source.pth"), str(tmp_path / "out"), *hints])
        assert not (tmp_path / "out").exists()
    command.main([str(tmp_path / "source.pth"), str(tmp_path / "out"), "--license", "cc-by-nc-4.0"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in card and "The weights are under the license `cc-by-nc-4.0`" in card
