"""An exported repo folder works where this package is not installed.

The other process runs the transformers that it finds: `.ci/run` runs this file on the newest release and on the floor.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import ConvNextImageProcessor, ViTImageProcessor

from sk_transformers import SKFormerModel
from sk_transformers.hub import export

from ..support.small_models import CAITS, VITS, small_config, small_model

LABELS = {0: "ant", 1: "bee", 2: "cicada"}


def processor_for(config):
    if not config.has_stages:
        return ViTImageProcessor(size={"height": config.image_size, "width": config.image_size})
    return ConvNextImageProcessor(size={"shortest_edge": config.image_size}, crop_pct=1.0)


def labelled_model(name):
    return small_model(name, num_labels=3, id2label=LABELS, label2id={v: k for k, v in LABELS.items()})


def load_elsewhere(repo, work, script="load_repo.py"):
    """What a script beside this file found in a process of its own: its report and its tensors."""
    work.mkdir(parents=True)
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "home"), "HF_MODULES_CACHE": str(work / "modules"),
    }  # fmt: skip
    command = [sys.executable, Path(__file__).with_name(script), repo, work]
    done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads((work / "report.json").read_text()), load_file(work / "outputs.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cskvit-small-data", "skvit-mean", "cskaformer", "separate-swin", "skcait", "cskcvt"])
def test_repo_loads_without_this_package(name, tmp_path):
    model = labelled_model(name)
    repo = export(model, processor_for(model.config), tmp_path / "repo")
    report, tensors = load_elsewhere(repo, tmp_path / "work")

    assert report["modules"] == ["transformers_modules"]
    assert sorted(report["labels"]) == sorted(LABELS.values())
    with torch.no_grad():
        expected = model(tensors["pixel_values"])
        pooled = model.base_model(tensors["pixel_values"]).pooler_output
    torch.testing.assert_close(tensors["logits"], expected.logits)
    torch.testing.assert_close(tensors["logits_again"], expected.logits)
    torch.testing.assert_close(tensors["pooler_output"], pooled)
    if name not in CAITS:
        assert tensors["feature_map"].dim() == 4
        assert all(key.startswith("feature_norms.") for key in report["fresh_in_backbone"])

    code = sorted(file.name for file in repo.glob("*.py") if file.name not in ("decoding.py", "handler.py"))
    again = tmp_path / "work" / "again"
    assert code == sorted(file.name for file in again.glob("*.py"))
    assert all((again / file).read_text() == (repo / file).read_text() for file in code)


def test_repo_is_complete(tmp_path):
    model = labelled_model("cskaformer")
    repo = export(model, processor_for(model.config), tmp_path / "some" / "repo")
    config = json.loads((repo / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_skformer.SKFormerConfig",
        "AutoModel": "modeling_skformer.SKFormerModel",
        "AutoModelForImageClassification": "modeling_skformer.SKFormerForImageClassification",
        "AutoBackbone": "modeling_skformer.SKFormerBackbone",
    }
    assert config["id2label"] == {str(k): v for k, v in LABELS.items()}
    files = {file.name for file in repo.iterdir()}
    assert files == {
        "LICENSE", "README.md", "attention.py", "attention_bias.py", "attention_options.py", "config.json",
        "configuration_checks.py", "configuration_skformer.py", "conv_key.py", "conv_projection.py", "decoding.py",
        "fast_attention_cpu.py", "fast_depthwise_cpu.py", "fast_mlp.py", "fast_paths.py", "grids.py", "handler.py",
        "layers.py", "model.safetensors", "modeling_common.py",
        "modeling_skformer.py", "modeling_stages.py", "normalizations.py", "preprocessor_config.json",
        "reference.py", "rotary.py", "static_key.py", "static_map.py", "talking_heads.py",
        "token_mixers.py",
    }  # fmt: skip
    assert "Apache License" in (repo / "LICENSE").read_text()
    assert all(oct(file.stat().st_mode)[-3:] == "644" for file in repo.iterdir())


def test_headless_models_and_backbones_are_exported_too(tmp_path):
    config = small_config("skaformer")
    repo = export(SKFormerModel(config), processor_for(config), tmp_path / "repo")
    assert json.loads((repo / "config.json").read_text())["auto_map"]["AutoModel"] == "modeling_skformer.SKFormerModel"
    assert "image-feature-extraction" in (repo / "README.md").read_text()
    assert not (repo / "handler.py").exists()  # it answers with classes


@pytest.mark.parametrize("name", [*VITS, *CAITS])
def test_card_says_where_the_mixers_are(name, tmp_path):
    model = small_model(name)
    card = (export(model, processor_for(model.config), tmp_path / "repo") / "README.md").read_text()
    assert "no trained weights" in card
    assert "None" not in card and "{{" not in card


def test_nothing_is_overwritten(tmp_path):
    model = small_model("skvit")
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="repo exists already: nothing was written"):
        export(model, processor_for(model.config), tmp_path / "repo")
    assert [file.name for file in tmp_path.rglob("*")] == ["repo", "notes.txt"]


def test_a_failed_export_leaves_nothing(tmp_path):
    model = small_model("skvit")

    class Broken(ViTImageProcessor):
        def save_pretrained(self, *args, **kwargs):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        export(model, Broken(), tmp_path / "repo")
    with pytest.raises(FileNotFoundError, match="plot.png"):
        export(model, processor_for(model.config), tmp_path / "repo", pictures={"plot.png": tmp_path / "plot.png"})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_wrapped_models_are_refused(tmp_path):
    model = small_model("skvit")
    for wrong in (torch.nn.DataParallel(model), torch.compile(model), torch.nn.Linear(1, 1)):
        with pytest.raises(TypeError, match=f"not {type(wrong).__name__}: unwrap it"):
            export(wrong, processor_for(model.config), tmp_path / "repo")
