"""Every recipe trains; recipes that do not fit are refused in one sentence."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from datasets import Dataset, Features, Image, Value

from sk_transformers.recipes import recipes
from sk_transformers.training.command_line import parse_options

from ..support.image_files import write_images
from ..support.training import SCRIPTS, finetune, metrics_of


def as_table(folder, file, label_column):
    """Write the images of a folder as a parquet file, with the names of their classes in that column."""
    files = sorted(folder.rglob("*.png"))
    rows = {
        "image": [{"bytes": image.read_bytes(), "path": None} for image in files],
        label_column: [image.parent.name for image in files],
    }
    features = Features({"image": Image(), label_column: Value("string")})
    Dataset.from_dict(rows, features).to_parquet(str(file))
    return file


CLASSIFIERS = [  # test_segmentation.py has the others
    name for name, file in recipes().items() if "problem_type" not in yaml.safe_load(file.read_text())
]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", CLASSIFIERS)
def test_each_recipe_trains(tmp_path, recipe):
    """Two steps of each, with everything it sets but the size of network, images and batch."""
    data = write_images(tmp_path / "images", classes=("ant", "bee"), images=12)
    model = ["--model", "skvit-nano-patch4-32"]
    if recipe.startswith("imagenet1k"):
        model = ["--model", f"{recipe.split('-')[1]}-nano", "--image_size", 32]
    if recipe.endswith("384"):  # from a trained network of half the size
        first = finetune("--model", "skaformer-nano", "--dataset", data, "--image_size", 32, "--max_train_steps", 1,
                         "--output_dir", tmp_path / "first")  # fmt: skip
        model = ["--model", first / "model", "--image_size", 64]
    small = ["--per_device_train_batch_size", 8, "--gradient_accumulation_steps", 1, "--num_workers", 0]
    if label_column := yaml.safe_load(recipes()[recipe].read_text()).get("label_column"):
        data = as_table(data, tmp_path / "images.parquet", label_column)
    run = finetune("--recipe", recipe, *model, "--dataset", data, *small, "--max_train_steps", 2,
                   "--output_dir", tmp_path / "run")  # fmt: skip
    assert metrics_of(run)["best"]["step"] >= 1


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("learning_rat: 0.1", "sets 'learning_rat', which is not an option: see --help"),
        (
            "learning_rate: fast",
            "sets learning_rate to 'fast': argument --learning_rate: fast is not a number greater than 0.",
        ),
        ("compile: 3", "sets compile to 3: unrecognized arguments: 3."),
        ("- learning_rate", "is not a recipe: expected lines of the form option: value"),
        ("learning_rate: [1", "is not valid YAML: "),
    ],
)
def test_wrong_recipes(tmp_path, recipe, sentence):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"{recipe}\n")
    with pytest.raises(ValueError, match=rf"recipe.yaml.*{re.escape(sentence)}"):
        parse_options(["--recipe", str(file), "--model", "skvit-nano-patch4-32", "--dataset", "digits"])


def test_the_script_ends_with_the_sentence_alone(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("learning_rate: fast\n")
    command = [
        sys.executable,
        SCRIPTS / "finetune.py",
        "--recipe",
        file,
        "--model",
        "skvit-nano-patch4-32",
        "--dataset",
        "digits",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert done.returncode == 1
    sentence = "sets learning_rate to 'fast': argument --learning_rate: fast is not a number greater than 0."
    assert done.stderr == f"error: {file} {sentence}\n"
