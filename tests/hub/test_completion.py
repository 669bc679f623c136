"""What a push adds to a card: where it goes, evaluations, examples and plots; never over what somebody edited."""

import json

import pytest
from PIL import Image

from sk_transformers.hub.cards.completion import complete_card, evaluation_of, example_of
from sk_transformers.hub.cards.merge import parse_card
from sk_transformers.hub.errors import PreflightError

FIGURES = {"images": 9, "top1": 0.51234, "top5": 1.0, "loss": 0.7, "calibration_error": 0.01}


@pytest.fixture
def image(tmp_path):
    file = tmp_path / "a_red-one.jpg"
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Image.new("RGB", (1000, 20), "red").save(file, exif=exif)
    return file


def test_an_example_is_small_and_has_no_metadata(image, tmp_path):
    answers = [{"label": label, "score": 0.123456} for label in "abcd"]
    example = example_of(image, answers)
    assert example["file"] == "examples/a_red-one.png" and example["title"] == "a red one"
    assert example["output"] == [{"label": label, "score": 0.1235} for label in "abc"]
    (tmp_path / "small.png").write_bytes(example["picture"])
    with Image.open(tmp_path / "small.png") as small:
        assert small.size == (512, 10) and not small.info.get("exif")


def test_an_evaluation_brings_its_plots_and_not_the_folder_of_its_data(tmp_path):
    record = {"dataset": "/home/me/bugs and more", "split": "test", **FIGURES}
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    Image.new("RGB", (5, 5)).save(tmp_path / "confusion.png")
    evaluation = evaluation_of(tmp_path)
    assert evaluation["dataset"] == "bugs and more"
    assert evaluation["files"] == {"evaluation/bugs-and-more-test-confusion.png": tmp_path / "confusion.png"}
    with pytest.raises(PreflightError, match="has no evaluation.json that sk-transformers evaluate wrote"):
        evaluation_of(tmp_path / "nothing")


def test_the_card_says_how_deep_pictures_are_read_where_the_decoder_is_there(repo_folder, tmp_path):
    assert "clips a gray picture of 16 bits" in (repo_folder / "README.md").read_text()
    for file in repo_folder.iterdir():
        if file.name not in ("model.safetensors", "decoding.py"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    for folder in (repo_folder, tmp_path):
        card = complete_card(folder, "org/tiny", None, {}, [], [])
        assert ("Give it `decode(file)` instead" in card) == (folder / "decoding.py").is_file()


def test_a_completed_card_reads_as_generated_and_keeps_what_was_edited(repo_folder, tmp_path, image):
    example = example_of(image, [{"label": "ant", "score": 0.9}])
    card = parse_card(complete_card(repo_folder, "org/tiny", "v1", {"curves.png": "Curves"}, [], [example]))
    assert all(card.is_untouched(name) for name in card.items)
    assert "![Curves](curves.png)" in card.items["## Plots"]
    (tmp_path / "tiny").mkdir()
    for file in repo_folder.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / "tiny" / file.name).write_bytes(file.read_bytes())
    text = (repo_folder / "README.md").read_text()
    (tmp_path / "tiny" / "README.md").write_text(text.replace("## How to use it\n", "## How to use it\n\nAs I say.\n"))
    completed = complete_card(tmp_path / "tiny", "org/tiny", "v1", {}, [], [example])
    assert "As I say." in completed and "## Examples" in completed
    (tmp_path / "tiny" / "README.md").write_text("# Mine\n")
    assert complete_card(tmp_path / "tiny", "org/tiny", None, {}, [], [example]) == "# Mine\n"
