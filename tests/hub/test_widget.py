"""The examples on a card are what the model answers."""

import json

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoImageProcessor, ViTImageProcessor

from sk_transformers.hub import export
from sk_transformers.hub.widget import add_widget_examples, widget_examples

from ..models.small_models import small_model

LABELS = {0: "ant", 1: "bee", 2: "cicada"}


def picture(shade):
    """A 20x20 image, a ramp from black to `shade`."""
    return Image.linear_gradient("L").resize((20, 20)).point(lambda value: value * shade // 255)


@pytest.fixture
def model():
    return small_model("cskvit", id2label=LABELS, label2id={label: i for i, label in LABELS.items()})


@pytest.fixture
def processor():
    return ViTImageProcessor(size={"height": 16, "width": 16})


def test_outputs_are_the_models_own(model, processor):
    model.train()
    images = {"examples/dark.png": picture(60), "light.png": picture(250).convert("RGBA")}
    dark, light = widget_examples(model, processor, images)
    assert (dark["src"], dark["example_title"]) == ("examples/dark.png", "dark")
    assert (light["src"], light["example_title"]) == ("light.png", "light")
    for example, image in zip((dark, light), images.values()):
        pixel_values = processor(image.convert("RGB"), return_tensors="pt").pixel_values
        with torch.no_grad():
            probabilities = model(pixel_values).logits[0].softmax(dim=0)
        expected = sorted(zip(probabilities.tolist(), LABELS.values()), reverse=True)
        assert example["output"] == [{"label": label, "score": round(score, 4)} for score, label in expected]


def test_five_classes_at_most(processor):
    (example,) = widget_examples(small_model("skvit", num_labels=9), processor, {"a.png": picture(100)})
    scores = [answer["score"] for answer in example["output"]]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)


def test_images_go_into_the_repo_and_the_metadata_into_its_card(model, processor, tmp_path):
    repo = export(model, processor, tmp_path / "repo")
    images = {"first": picture(60), "second": picture(120), "third": picture(250)}
    examples = add_widget_examples(repo, images)
    expected = {f"examples/{name}.png": image.convert("RGB") for name, image in images.items()}
    assert examples == widget_examples(model, AutoImageProcessor.from_pretrained(repo), expected)
    assert sorted(file.name for file in (repo / "examples").iterdir()) == ["first.png", "second.png", "third.png"]
    for path, image in expected.items():
        assert Image.open(repo / path).tobytes() == image.tobytes()
        assert oct((repo / path).stat().st_mode)[-3:] == "644"

    card = ModelCard.load(repo / "README.md")
    card.data.widget = examples
    card.save(repo / "README.md")
    assert ModelCard.load(repo / "README.md").data.to_dict()["widget"] == json.loads(json.dumps(examples))


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_names_with_folders_are_refused(name, model, processor, tmp_path):
    repo = export(model, processor, tmp_path / "repo")
    with pytest.raises(ValueError, match="cannot name an example: expected a plain file name"):
        add_widget_examples(repo, {name: picture(10)})
    assert not (repo / "examples").exists()


def test_examples_are_not_overwritten(model, processor, tmp_path):
    repo = export(model, processor, tmp_path / "repo")
    add_widget_examples(repo, {"first": picture(60)})
    before = (repo / "examples" / "first.png").read_bytes()
    with pytest.raises(FileExistsError, match="exists already: nothing was written"):
        add_widget_examples(repo, {"new": picture(60), "first": picture(250)})
    assert [file.name for file in (repo / "examples").iterdir()] == ["first.png"]
    assert (repo / "examples" / "first.png").read_bytes() == before


def test_no_images(model, processor):
    with pytest.raises(ValueError, match="No images: a widget needs at least one"):
        widget_examples(model, processor, {})
