"""The zoo's trained networks: what a checkout keeps of each belongs together, and loads from there and from the Hub."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file
from transformers import pipeline

from sk_transformers import create_model, list_models, zoo
from sk_transformers.cli.export import main
from sk_transformers.hub.fingerprint import fingerprint
from sk_transformers.hub.preflight import check_loading
from sk_transformers.hub.trained import export_trained
from sk_transformers.pretrained import load_classifier, weights_sha256
from sk_transformers.zoo import TRAINED, TRAINED_FOLDER

from ..support.hub_server import HubServer

MEGABYTE = 10**6


def read(name, file):
    return json.loads((TRAINED_FOLDER / name / file).read_text())


def test_their_names():
    assert sorted(TRAINED) == sorted(file.parent.name for file in TRAINED_FOLDER.glob("*/model.safetensors"))
    assert list_models(pretrained=True) == sorted(TRAINED)
    assert list_models("nano", pretrained=True) == []


def test_their_size():
    sizes = [(TRAINED_FOLDER / name / "model.safetensors").stat().st_size for name in TRAINED]
    assert max(sizes) < 3 * MEGABYTE
    assert sum(sizes) < 20 * MEGABYTE


@pytest.mark.parametrize("name", TRAINED)
def test_weights_records_and_card_belong_together(name):
    weights = TRAINED_FOLDER / name / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    evaluation, card = read(name, "evaluation/evaluation.json"), (TRAINED_FOLDER / name / "README.md").read_text()
    assert weights_sha256(name) == evaluation["weights_sha256"] == digest
    assert digest in card
    assert f"{evaluation['top1']:.4f}" in card
    assert evaluation["split"] == "test"
    assert all(tensor.dtype in (torch.float16, torch.int64) for tensor in load_file(weights).values())
    assert fingerprint(load_classifier(name)[0]) == pytest.approx(read(name, "metrics.json")["fingerprint"], abs=0.02)


@pytest.mark.parametrize("name", TRAINED)
def test_nothing_tells_of_the_machine(name):
    for file in TRAINED_FOLDER.joinpath(name).rglob("*"):
        if file.suffix in (".json", ".md"):
            assert not re.search(r"[\"' =]/(work|home|root|tmp|mnt)\b", file.read_text()), file


@pytest.mark.parametrize("name", TRAINED)
def test_answers_are_those_on_the_card(name):
    model, image_processor = load_classifier(name)
    classify = pipeline("image-classification", model=model, image_processor=image_processor)
    examples = read(name, "examples.json")
    assert examples
    for example in examples:
        answers = {
            answer["label"]: answer["score"] for answer in classify(str(TRAINED_FOLDER / name / example["file"]))
        }
        for shown in example["output"]:
            assert answers[shown["label"]] == pytest.approx(shown["score"], abs=0.02)


def test_the_readme_classifies_its_picture(monkeypatch, capsys):
    monkeypatch.chdir(TRAINED_FOLDER.parent)
    blocks = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.S)
    (example,) = [block for block in blocks if "model_cards/examples" in block]
    call, expected = re.search(r"^(classify\(.*\)\S*)  # (\S+)$", example, re.M).groups()
    names: dict = {}
    exec(example.replace(call, f"answer = {call}"), names)
    assert names["answer"] == json.loads(expected)


def test_create_model_loads_the_weights():
    name = TRAINED[0]
    model = create_model(name, pretrained=True)
    assert model.dtype == torch.float32
    stored = load_file(TRAINED_FOLDER / name / "model.safetensors")
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, stored[key].to(tensor.dtype), rtol=0, atol=0)


def test_the_folder_of_a_run_hides_no_trained_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(TRAINED[0], "checkpoint-0000010").mkdir(parents=True)
    assert load_classifier(TRAINED[0])[0].config.id2label[3] == "cat"
    main([TRAINED[0], "exported"])
    assert weights_sha256("exported") == weights_sha256(str(TRAINED_FOLDER / TRAINED[0]))
    Path("exported").replace(TRAINED[1])  # which a folder with a model does
    assert weights_sha256(TRAINED[1]) == weights_sha256(str(TRAINED_FOLDER / TRAINED[0]))


def test_another_head_starts_afresh_on_the_same_features():
    name = TRAINED[0]
    model, trained = create_model(name, pretrained=True, num_labels=3), create_model(name, pretrained=True)
    assert model.config.num_labels == 3
    stored = trained.base_model.state_dict()
    for key, tensor in model.base_model.state_dict().items():
        torch.testing.assert_close(tensor, stored[key], rtol=0, atol=0)


@pytest.mark.parametrize(
    "name, overrides, said",
    [
        ("vit-base-patch16-224", {}, "no trained weights of 'vit-base-patch16-224', only of"),
        ("skaformer-micro", {}, "Unknown model 'skaformer-micro'. Did you mean 'skaformer-micro-32'"),
        (TRAINED[0], {"hiden_sizes": [8]}, "no field 'hiden_sizes'"),
        (TRAINED[0], {"hidden_sizes": [40, 80, 128, 192]}, "do not fit hidden_sizes"),
    ],
)
def test_what_there_are_no_weights_for(name, overrides, said):
    with pytest.raises(ValueError, match=said):
        create_model(name, pretrained=True, **overrides)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_the_exported_folder_loads_without_this_package(name, tmp_path, capsys):
    main([name, str(tmp_path / "repo")])
    repo = tmp_path / "repo"
    assert capsys.readouterr().out.strip() == str(repo)
    assert (repo / "model.safetensors").read_bytes() == (TRAINED_FOLDER / name / "model.safetensors").read_bytes()
    assert {"LICENSE", "handler.py", "README.md", "curves.png", "decoding.py"} <= {file.name for file in repo.iterdir()}
    pictures = sorted((repo / "examples").glob("*.png"))
    answers = check_loading(repo, pictures, read(name, "metrics.json")["fingerprint"])
    shown = [example["output"][0]["label"] for example in read(name, "examples.json")]
    assert [answer[0]["label"] for answer in answers] == shown


def test_an_occupied_folder_stays_as_it_is(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        export_trained(TRAINED[0], tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_without_a_checkout_they_come_from_the_hub(hub: HubServer, tmp_path, monkeypatch):
    name = TRAINED[0]
    folder = export_trained(name, tmp_path / name)
    HfApi().create_repo(f"org/{name}")
    HfApi().upload_folder(repo_id=f"org/{name}", folder_path=folder)
    expected = create_model(name, pretrained=True).state_dict()
    monkeypatch.setattr(zoo, "TRAINED_FOLDER", tmp_path / "no checkout")
    monkeypatch.setattr(zoo, "ORGANIZATION", "org")
    for key, tensor in create_model(name, pretrained=True).state_dict().items():
        torch.testing.assert_close(tensor, expected[key], rtol=0, atol=0)
    again = export_trained(name, tmp_path / "again")
    assert {file.name for file in folder.iterdir()} == {file.name for file in again.iterdir()}
