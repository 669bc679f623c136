"""What `scripts/finetune.py` says to options that do not fit: one sentence, which names the option."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from sk_transformers.training.command_line import parse_options
from sk_transformers.training.loop import train

SCRIPTS = Path(__file__).parents[2] / "scripts"
DIGITS = ["--model", "skvit-nano-patch4-32", "--dataset", "digits"]


def finetune(*options):
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    train(parse_options([*map(str, options)]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--auto_augment foo", "--auto_augment foo is not a policy of timm: expected one such as rand-m9"),
        ("--auto_augment rand-mfoo", "--auto_augment rand-mfoo is not a policy of timm"),
        ("--opt adamq", "--opt adamq is not an optimizer of timm: expected one such as adamw"),
        ("--opt_betas 0.9", "--opt_betas has 1 of them, and --opt adamw has 2"),
        ("--opt sgd --opt_betas 0.9 0.9", "--opt_betas has 2 of them, and --opt sgd has 0"),
        ("--opt_betas 2 3", "argument --opt_betas: 2 is not a decay of at least 0 and less than 1."),
        ("--opt sgd --opt_eps 1e-8", "--opt_eps 1e-08: --opt sgd has none; leave it out"),
        ("--crop_ratio 0 1", "--crop_ratio is [0.0, 1.0], expected two ratios of width to height, smaller first"),
        (
            "--mixup 0.8 --mixup_mode elem --per_device_train_batch_size 33",
            "--per_device_train_batch_size is 33, expected an even number: Mixup and CutMix pair the images",
        ),
        ("--repeated_augmentation 3 --streaming", "--repeated_augmentation 3: a stream gives each image once"),
        ("--rotation -5", "argument --rotation: -5 is not a number of at least 0."),
        ("--momentum 5", "argument --momentum: 5 is not a fraction between 0 and 1."),
        ("--mixed_precision fp16", "--mixed_precision fp16 is not supported on the CPU: use bf16 or no"),
        ("--report_to wandb", "--report_to wandb: it is not installed: pip install wandb"),
        ("--image_size 30", "image_size 30 is not a multiple of patch_size 4"),
        ("--config_overrides depths=[1", "--config_overrides depths=[1 is not valid YAML: "),
        ("--config_overrides hidden_sise=3", "has no field 'hidden_sise'. Did you mean 'hidden_size'?"),
        ("--lora_rank 2 --lora_target_modules mlp2", "--lora_target_modules mlp2: no adapter fits: "),
        ("--teacher org/nothing", "--teacher org/nothing could not be loaded: "),
        ("--label_column klass", "digits has columns image, label and no 'klass' among them: name it with --label_col"),
        ("--resume_from_checkpoint latest", "run holds no checkpoint"),
        ("--push_to_hub bad!id", "--push_to_hub bad!id: "),
    ],
)
def test_wrong_options(tmp_path, monkeypatch, options, sentence):
    from sk_transformers.training import trackers

    find_spec = trackers.find_spec
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "wandb" else find_spec(name))
    with pytest.raises((ValueError, OSError, ImportError), match=re.escape(sentence)):
        finetune(*DIGITS, "--max_train_samples", 64, "--output_dir", tmp_path / "run", *options.split())
    assert not (tmp_path / "run" / "model").exists()


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
        parse_options(["--recipe", str(file), *DIGITS])


def test_networks_of_others_are_for_teaching(tmp_path):
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor().save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="vit is a ViTForImageClassification, expected one of this package's networks"):
        finetune("--model", tmp_path / "vit", "--dataset", "digits", "--output_dir", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="--model .*empty could not be loaded: "):
        finetune("--model", tmp_path / "empty", "--dataset", "digits", "--output_dir", tmp_path / "run")


def test_the_script_ends_with_the_sentence_alone(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("learning_rate: fast\n")
    command = [sys.executable, SCRIPTS / "finetune.py", "--recipe", file, *DIGITS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert done.returncode == 1
    sentence = "sets learning_rate to 'fast': argument --learning_rate: fast is not a number greater than 0."
    assert done.stderr == f"error: {file} {sentence}\n"
