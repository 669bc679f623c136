"""What keeps a folder from being published, each with its sentence."""

import shutil

import pytest
import torch

from sk_transformers.hub.errors import PreflightError
from sk_transformers.hub.preflight import compare_with_model_here, isolated_load
from sk_transformers.hub.push import push_folder


def one_sentence(error):
    text = str(error.value)
    return "\n" not in text and text.endswith((".", "?"))


def edit_card(old, new):
    def edit(folder):
        card = folder / "README.md"
        assert old in card.read_text()
        card.write_text(card.read_text().replace(old, new))

    return edit


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (write("pytorch_model.bin", b""), "pytorch_model.bin may hold a pickle, .*: save it as safetensors"),
        (write("weights.safetensors", b"\x80\x04K\x01."), "weights.safetensors is not a safetensors file"),
        (write("program.exe", b"MZ"), "program.exe is of a kind that a model's repo does not need"),
        (write("notes.txt", b"hf_" + b"a1" * 17), "notes.txt holds a token of the Hub"),
        (write("notes.txt", b"\xff"), "notes.txt is not text in UTF-8"),
        (write("plot.png", b"no"), "plot.png is not an image"),
        (write("config.json", b"{"), "config.json is not JSON"),
        (lambda folder: (folder / "link.json").symlink_to("config.json"), "link.json is a link"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (edit_card("license: apache-2.0", "license: appache-2.0"), "no license 'appache-2.0': did you mean apache-2.0"),
        (edit_card("pipeline_tag: image-classification\n", ""), "its metadata has no pipeline_tag"),
        (edit_card("tags:", "tags: ["), "the metadata at the top of the card is not valid YAML"),
        (edit_card("tags:", "base_model: /home/me/model\ntags:"), "base_model is '/home/me/model', expected the id"),
        (edit_card("tags:", "model-index:\n- name: x\ntags:"), "README.md: Invalid `model_index`"),
    ],
)
def test_folders_that_are_not_fit(spoil, said, repo_folder, tmp_path):
    folder = shutil.copytree(repo_folder, tmp_path / "tiny")
    spoil(folder)
    with pytest.raises(PreflightError, match=said) as error:
        push_folder(folder, "org/tiny")
    assert one_sentence(error)


@pytest.mark.slow
def test_a_folder_that_does_not_load_elsewhere(repo_folder, tmp_path):
    folder = shutil.copytree(repo_folder, tmp_path / "tiny")
    code = folder / "modeling_common.py"
    code.write_text(code.read_text() + "\nimport sk_transformers.zoo\n")
    with pytest.raises(PreflightError, match="does not load where this package is not installed: .*sk_transformers"):
        isolated_load(folder, [])


def test_outputs_must_be_those_of_the_package_and_of_the_run(repo_folder):
    from transformers import AutoModelForImageClassification

    from sk_transformers.hub.fingerprint import fingerprint

    model = AutoModelForImageClassification.from_pretrained(repo_folder)
    pixel_values = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        outputs = {"pixel_values": pixel_values, "output": model(pixel_values).logits}
    compare_with_model_here(repo_folder, outputs, fingerprint(model))
    with pytest.raises(PreflightError, match="gives other outputs than this package's"):
        compare_with_model_here(repo_folder, {**outputs, "output": outputs["output"] + 0.01}, None)
    with pytest.raises(PreflightError, match="outputs are not finite"):
        compare_with_model_here(repo_folder, {**outputs, "output": outputs["output"] * float("nan")}, None)
    with torch.no_grad():
        model.classifier.bias += 0.01
    with pytest.raises(PreflightError, match="other outputs than those that the run measured"):
        compare_with_model_here(repo_folder, outputs, fingerprint(model))
