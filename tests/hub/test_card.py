"""Cards say what is so, and nothing else; those of the zoo are up to date."""

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard
from transformers import AutoModelForImageClassification

from sk_transformers import SKFormerModel, create_config
from sk_transformers.hub import create_card
from sk_transformers.hub.cards.card import SECTIONS, TEMPLATE, OriginFacts, RepoFacts, TrainingFacts
from sk_transformers.hub.cards.diagram import draw
from sk_transformers.hub.cards.merge import parse_card
from sk_transformers.hub.preflight import check_card
from sk_transformers.zoo import TRAINED, VARIANTS

from ..support.small_models import ALL, small_config, small_model

ROOT = Path(__file__).parents[2]
TRAINING = TrainingFacts(
    {"Command": "`sk-transformers train`", "Seed": 7},
    [
        EvalResult("image-classification", "org/bugs", "bugs", "accuracy", 0.51234, dataset_split="validation",
                   metric_name="Top-1 accuracy")
    ],
    recipe={"learning_rate": 0.001, "crop_scale": [0.7, 1.0]},
    plots={"curves.png": "Curves"},
)  # fmt: skip
FACTS = {
    "training": TRAINING,
    "origin": OriginFacts("skaformer-s18", "cc-by-nc-4.0", "org/tiny", ["org/bugs"]),
    "evaluations": [{"dataset": "bugs", "split": "validation", "images": 9, "top1": 0.5, "top5": 1.0, "loss": 0.7,
                     "calibration_error": 0.01, "images_per_second": 12.4, "plots": {"confusion.png": "Confusion"}}],
    "repo": RepoFacts(
        "org/tiny", "v1",
        examples=[{"file": "examples/ant.png", "title": "ant", "output": [{"label": "ant", "score": 0.9}]}],
        plots={"other.png": "Other"},
        onnx={"bytes": {"onnx/model.onnx": 4096},
              "top1": {"dataset": "bugs", "split": "validation", "images": 9, "onnx/model.onnx": 0.75}},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def rendered():
    script = importlib.util.spec_from_file_location("render_cards", ROOT / "scripts" / "render_cards.py")
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    return module.render_cards(), module


def card_file(name):
    return f"{name}/README.md" if name in TRAINED else f"{name}.md"


def meta_model(name):
    with torch.device("meta"):
        return AutoModelForImageClassification.from_config(create_config(name))


@pytest.mark.slow
def test_the_zoos_cards_are_up_to_date(rendered):
    cards, script = rendered
    assert script.out_of_date(cards) == [], "run scripts/render_cards.py"
    assert sorted(cards) == sorted(card_file(name) for name in VARIANTS)


@pytest.mark.slow
def test_cards_out_of_date_are_found(rendered, tmp_path):
    _, script = rendered
    for name, text in {"same.md": "a", "changed.md": "b", "gone.md": "c", "README.md": "d"}.items():
        (tmp_path / name).write_text(text)
    assert script.out_of_date({"same.md": "a", "changed.md": "B", "new.md": "e"}, tmp_path) == [
        "changed.md", "gone.md", "new.md",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_zoos_cards_are_valid_and_admit_where_there_are_no_weights(rendered):
    for name, text in rendered[0].items():
        check_card(text)
        card, is_trained = ModelCard(text), name.endswith("/README.md")
        first_line = card.text.strip().splitlines()[0]
        assert first_line.startswith("**This model has no trained weights") == (not is_trained), name
        for measured in ("## Results", "## Evaluation", "model-index"):
            assert (measured in text) == is_trained, name
        assert set(parse_card(text).items) <= {*SECTIONS, *(f"{key}:" for key in yaml.safe_load(text.split("---")[1]))}


def test_a_card_says_what_corruptions_cost_and_of_which_weights():
    measured = {**FACTS["evaluations"][0], "weights_sha256": "ab12", "robustness": {"mean_error": 0.375}}
    text = str(create_card(meta_model("skaformer-nano"), "ants", TRAINING, evaluations=[measured]))
    section = parse_card(text).items["## Evaluation"]
    assert "mean error over kinds and severities is 0.3750" in section and "`ab12`" in section


@pytest.mark.slow
def test_published_results_are_marked_as_the_authors(rendered):
    for name, variant in VARIANTS.items():
        text = rendered[0][card_file(name)]
        assert ("## Published results" in text) == (variant.published.top1 is not None)
        if variant.published.top1:
            section = parse_card(text).items["## Published results"]
            assert "the authors' own, of their weights and not of these" in section
            assert f"| {variant.published.top1} |" in section


@pytest.mark.parametrize("name", ALL)
def test_drawings_have_a_letter_for_each_layer(name):
    model = small_model(name)
    drawing = draw(model)
    static = [module for module in model.modules() if hasattr(module, "static_keys")]
    body, *legend = drawing.split("\n\n")
    letters = [word for word in body.split() if set(word) in ({"K"}, {"."})]
    assert sum(word.count("K") for word in letters) == len(static)
    depths = getattr(model.config, "depths", [len(model.config.token_mixers)])
    assert sum(map(len, letters)) == sum(depths) + getattr(model.config, "num_class_layers", 0)
    assert bool(legend) == bool(static)
    assert max(map(len, drawing.splitlines())) <= 100


def test_a_drawing():
    assert draw(meta_model("skaformer-s18")) == (
        "image    224 x 224\n"
        "stem     56 x 56                   convolution\n"
        "stage 1  56 x 56 x 64   ...        separable convolution\n"
        "stage 2  28 x 28 x 128  KKK        static keys (SKA)\n"
        "                                   4 heads, 784 keys of 32\n"
        "stage 3  14 x 14 x 320  KKKKKKKKK  static keys (SKA)\n"
        "                                   10 heads, 196 keys of 32\n"
        "stage 4  7 x 7 x 512    ...        self-attention\n"
        "classes  1000\n"
        "\n"
        "K  a layer with static keys    .  a layer without"
    )


def test_a_card_with_all_facts():
    card = create_card(small_model("skvit"), "tiny", **FACTS)
    text = str(card)
    check_card(text)
    assert [name for name in parse_card(text).items if name.startswith("#")] == SECTIONS
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["license"] == "cc-by-nc-4.0" and metadata["base_model"] == "org/tiny"
    assert metadata["datasets"] == ["org/bugs"] and metadata["metrics"] == ["accuracy"]
    assert metadata["widget"] == [
        {"src": "examples/ant.png", "example_title": "ant", "output": [{"label": "ant", "score": 0.9}]}
    ]
    values = [m["value"] for result in metadata["model-index"][0]["results"] for m in result["metrics"]]
    assert sorted(values) == [0.5, 0.51234, 1.0]
    for said in (
        'model="org/tiny"', 'revision="v1"', "- Seed: 7",
        "classifies 51.23% right ([results](#results))", "learning_rate: 0.001", "![Curves](curves.png)", "0.5123",
        "![Confusion](confusion.png)", "82.3", "![Other](other.png)", "under the license `cc-by-nc-4.0`",
        "| ant | ant (90.0%) |", "runs `handler.py` as it is", "[examples](#examples) below were answered before",
        "9 images of bugs, validation", "| `onnx/model.onnx` | 4 KiB | 0.7500 |",
        '["org/tiny", "v1"]', "12 images per second and process",
    ):  # fmt: skip
        assert said in text, said
    assert "no trained weights" not in text


def test_a_card_without_facts_has_no_sections_for_them():
    text = str(create_card(small_model("cskvit"), "tiny"))
    absent = {"## How it was trained", "## Results", "## Evaluation", "## Published results", "## Examples", "## Plots"}
    assert [name for name in parse_card(text).items if name.startswith("#")] == [
        name for name in SECTIONS if name not in absent
    ]
    assert "(#" not in text and "onnx" not in text.lower()
    assert not any(word in text for word in ("None", "{{", "{%", "TODO", "More Information"))
    assert "\n\n\n" not in text


def test_class_names_with_commas_stay_apart():
    labels = {0: "tench, Tinca tinca", 1: "ant", 2: "crane, bird"}
    model = small_model("skvit", id2label=labels, label2id={label: index for index, label in labels.items()})
    text = str(create_card(model, "tiny", TrainingFacts({"Seed": 1})))
    assert "3 of them: tench, Tinca tinca; ant; crane, bird." in text


def test_sections_are_those_of_the_template():
    assert [line for line in TEMPLATE.read_text().splitlines() if line.startswith("## ")] == SECTIONS[1:]


def test_a_headless_model_is_no_classifier():
    text = str(create_card(SKFormerModel(small_config("skaformer")), "tiny", TrainingFacts({"Seed": 1})))
    assert "pipeline_tag: image-feature-extraction" in text and "embed(" in text and "classes" not in text
    assert "handler.py" not in text and "cannot embed an image" in text


@pytest.mark.parametrize("name", ["cskvit", "no-query-former"])
def test_a_card_reads_as_generated_after_a_round_trip(name, tmp_path):
    create_card(small_model(name), "tiny", **FACTS).save(tmp_path / "README.md")
    card = parse_card((tmp_path / "README.md").read_text())
    assert card.digests and all(card.is_untouched(item) for item in card.items)
