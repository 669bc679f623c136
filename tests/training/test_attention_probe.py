"""The entropy of attention that a run logs."""

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification

from sk_transformers.data.loaders import read_image
from sk_transformers.pretrained import load_classifier

from ..support.image_files import load_images
from ..support.training import QUICK, finetune, metrics_of


def test_a_run_logs_the_entropy_of_each_layer(tmp_path):
    run = finetune(*QUICK, "--config_overrides", "num_hidden_layers=2", "--num_train_epochs", 1,
                   "--log_attention_entropy", "--output_dir", tmp_path / "run")  # fmt: skip
    _, processor = load_classifier(str(run / "model"))
    model = AutoModelForImageClassification.from_pretrained(run / "model", attn_implementation="eager").double().eval()
    images = [read_image(image) for image in load_images("digits", max_eval_samples=60).validation["image"][:16]]
    pixel_values = processor(images, return_tensors="pt").pixel_values.double()
    with torch.no_grad():
        layers = model(pixel_values, output_attentions=True).attentions
    expected = [-(weights * weights.log()).sum(dim=-1).mean().item() for weights in layers]
    (entry,) = metrics_of(run)["history"]
    logged = [value for name, value in entry.items() if name.startswith("attention_entropy_layer_")]
    assert logged == pytest.approx(expected, rel=1e-5)
    assert Image.open(run / "curves.png").width == round(14.5 * 110)


def test_a_network_that_does_not_attend_has_none(tmp_path):
    with pytest.raises(ValueError, match="no layer of convformer-nano attends, its token mixers are separable_conv"):
        finetune("--model", "convformer-nano", "--dataset", "digits", "--image_size", 32, "--log_attention_entropy",
                 "--output_dir", tmp_path / "run")  # fmt: skip
