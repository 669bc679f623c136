"""What a finished run leaves: figures, curves, and a repo folder with the best weights."""

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline

from sk_transformers.data.loaders import read_image

from ..support.image_files import load_images
from ..support.training import QUICK, finetune, metrics_of


@pytest.mark.slow
def test_a_run_leaves_everything(tmp_path):
    run = finetune(*QUICK, "--num_train_epochs", 3, "--output_dir", tmp_path / "run")
    metrics = metrics_of(run)
    assert [entry["step"] for entry in metrics["history"]] == [6, 12, 18]
    # Two steps of warm-up to 2e-3, then a cosine to a hundredth of it at step 18; an epoch ends with its sixth step.
    cosine = [0.505 + 0.495 * math.cos(math.pi * step / 18) for step in (5, 11, 17)]
    assert [entry["learning_rate"] for entry in metrics["history"]] == pytest.approx([2e-3 * part for part in cosine])
    assert metrics["history"][-1]["train_loss"] < metrics["history"][0]["train_loss"]
    assert metrics["data"]["labels"] == [str(i) for i in range(10)]
    kept = {f"checkpoint-{step:07d}" for step in (metrics["best"]["step"], 18)}
    assert {path.name for path in run.iterdir()} == {"metrics.json", "model", "curves.png", *kept}
    assert (run / "model" / "curves.png").read_bytes() == (run / "curves.png").read_bytes()

    card = (run / "model" / "README.md").read_text()
    assert f"value: {round(metrics['best']['top1'], 4)}" in card and "no trained weights" not in card
    data = load_images("digits")
    image = read_image(data.validation[0]["image"])
    answers = pipeline("image-classification", model=str(run / "model"))(image, top_k=3)
    assert {answer["label"] for answer in answers} <= set(data.labels)


@pytest.mark.slow
def test_the_exported_model_has_the_reported_accuracy(tmp_path):
    run = finetune(*QUICK, "--num_train_epochs", 2, "--output_dir", tmp_path / "run")
    classify = pipeline("image-classification", model=str(run / "model"))
    data = load_images("digits", max_eval_samples=60)
    images = [read_image(image) for image in data.validation["image"]]
    right = [
        answers[0]["label"] == data.labels[label]
        for answers, label in zip(classify(images, top_k=1, batch_size=64), data.validation["label"])
    ]
    assert sum(right) / len(right) == pytest.approx(metrics_of(run)["best"]["top1"])


@pytest.mark.slow
def test_averaged_weights_are_evaluated_and_exported(tmp_path):
    run = finetune(*QUICK, "--max_train_steps", 5, "--ema_decay", 0.7, "--checkpointing_steps", 1,
                   "--checkpoints_total_limit", 9, "--output_dir", tmp_path / "run")  # fmt: skip
    saved = [load_file(run / f"checkpoint-{step:07d}" / "model.safetensors") for step in range(1, 6)]
    average = load_file(run / "model" / "model.safetensors")
    for name in average:
        expected = saved[0][name].double()  # timm starts from the first step's weights
        for weights in saved[1:]:
            expected = 0.7 * expected + 0.3 * weights[name].double()
        torch.testing.assert_close(average[name].double(), expected, rtol=1e-5, atol=1e-7)
    metrics = metrics_of(run)
    assert metrics["best"]["top1"] == metrics["history"][0]["ema_top1"]
    assert metrics["best"]["loss"] != metrics["history"][0]["loss"]
