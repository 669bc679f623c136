"""The options of a run, from the command line and from Python, and what is said of those that do not fit."""

import re
from dataclasses import replace

import pytest
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from sk_transformers.data.options import AugmentationOptions, DataOptions
from sk_transformers.training.command_line import parse_options
from sk_transformers.training.options import ModelOptions, OptimizationOptions, RunOptions, TrainOptions

from ..support.training import finetune

DIGITS = ["--model", "skvit-nano-patch4-32", "--dataset", "digits"]


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
        ("--label_column klass", "--label_column klass: digits is built in, leave the option out."),
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


def test_networks_of_others_are_for_teaching(tmp_path):
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor().save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="vit is a ViTForImageClassification, expected one of this package's networks"):
        finetune("--model", tmp_path / "vit", "--dataset", "digits", "--output_dir", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="--model .*empty could not be loaded: "):
        finetune("--model", tmp_path / "empty", "--dataset", "digits", "--output_dir", tmp_path / "run")


def test_options_need_no_command_line():
    options = TrainOptions(ModelOptions("org/some-model"), DataOptions("pets/cats"), run=RunOptions(seed=3))
    assert options.run.output_dir == "runs/some-model-cats"
    given = parse_options(["--model", "org/some-model", "--dataset", "pets/cats", "--seed", "3"])
    assert given == options and given.to_dict() == options.to_dict()
    with pytest.raises(ValueError, match="--per_device_train_batch_size is 33, expected an even number"):
        replace(
            options,
            augmentation=AugmentationOptions(mixup=0.8),
            optimization=OptimizationOptions(per_device_train_batch_size=33),
        )


def test_a_run_without_options_is_the_quick_start():
    options = parse_options([])
    assert (options.recipe, options.data.dataset) == ("digits", "digits")
    assert options.schedule.learning_rate == 2e-3  # the recipe's
    assert parse_options(["--learning_rate", "0.5"]).schedule.learning_rate == 0.5  # over it
    assert parse_options(["--recipe", "folder", *DIGITS, "--no-ema_warmup"]).optimization.ema_warmup is False
