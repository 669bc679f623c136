"""transformers' own ViT folders beside what they become."""

import pytest
import torch
from transformers import (
    AutoImageProcessor,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    ResNetConfig,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from sk_transformers.conversion import CheckpointError, convert
from sk_transformers.conversion.names import TRANSFORMERS_VIT_RULES, convert_state_dict

from ..support.networks import assert_close, drawn, logits

SMALL = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48,
}  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [{}, {"hidden_act": "relu"}, {"qkv_bias": False}, {"layer_norm_eps": 1e-3}, {"num_channels": 1}],
    ids=lambda settings: next(iter(settings), "plain"),
)
def test_vit(settings, tmp_path):
    labels = {0: "cat", 1: "dog", 2: "newt"}
    config = ViTConfig(**SMALL, **settings, id2label=labels, label2id={name: i for i, name in labels.items()})
    network = drawn(ViTForImageClassification(config))
    network.save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1] * 3).save_pretrained(tmp_path / "vit")
    conversion = convert(str(tmp_path / "vit"), tmp_path / "out", license="mit")

    assert conversion.difference < 1e-9
    assert conversion.model.config.id2label == labels
    assert list(AutoImageProcessor.from_pretrained(tmp_path / "out").image_mean) == [0.1] * 3
    images = torch.randn(2, config.num_channels, 32, 32, dtype=torch.float64)
    assert_close(logits(conversion.model, images), logits(network, images))
    images = torch.randn(1, config.num_channels, 32, 32, dtype=torch.float64)
    found = conversion.model(images, output_attentions=True).attentions
    network.set_attn_implementation("eager")
    for ours, theirs in zip(found, network(images, output_attentions=True).attentions):
        assert (ours - theirs).abs().max() < 1e-6  # theirs is a float32 softmax


@pytest.mark.parametrize("network_class", [DeiTForImageClassification, DeiTForImageClassificationWithTeacher])
def test_deit(network_class, tmp_path):
    network = drawn(network_class(DeiTConfig(**SMALL, num_labels=5)))
    network.save_pretrained(tmp_path / "deit")
    conversion = convert(str(tmp_path / "deit"), tmp_path / "out", license="mit")
    assert conversion.model.config.num_class_tokens == 2
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert_close(logits(conversion.model, images), logits(network, images))


def test_what_transformers_leaves_out_is_told(tmp_path):
    network = ViTForImageClassification(ViTConfig(**SMALL))
    network.save_pretrained(tmp_path / "vit", state_dict={**network.state_dict(), "extra.weight": torch.ones(3)})
    conversion = convert(str(tmp_path / "vit"), tmp_path / "out", license="mit")
    assert "left out    extra.weight, which transformers leaves out too" in str(conversion)


def test_non_square_vit(tmp_path):
    network = drawn(ViTForImageClassification(ViTConfig(**{**SMALL, "image_size": (16, 32)})))
    network.save_pretrained(tmp_path / "vit")
    conversion = convert(str(tmp_path / "vit"), tmp_path / "out", license="mit")
    images = torch.randn(2, 3, 16, 32, dtype=torch.float64)
    assert_close(logits(conversion.model, images), logits(network, images))


def test_names_of_older_releases():
    older = {
        "vit.encoder.layer.3.attention.attention.query.weight": "skvit.layers.3.mixer.q_proj.weight",
        "vit.encoder.layer.3.attention.attention.key.bias": "skvit.layers.3.mixer.k_proj.bias",
        "vit.encoder.layer.3.attention.attention.value.bias": "skvit.layers.3.mixer.v_proj.bias",
        "vit.encoder.layer.3.attention.output.dense.weight": "skvit.layers.3.mixer.o_proj.weight",
        "vit.encoder.layer.3.intermediate.dense.weight": "skvit.layers.3.mlp.fc1.weight",
        "vit.encoder.layer.3.output.dense.weight": "skvit.layers.3.mlp.fc2.weight",
        "vit.encoder.layer.3.layernorm_before.weight": "skvit.layers.3.layernorm_before.weight",
        "vit.layernorm.bias": "skvit.layernorm.bias",
        "classifier.bias": "classifier.bias",
    }
    tensors = {name: torch.zeros(1) for name in older}
    assert list(convert_state_dict(tensors, TRANSFORMERS_VIT_RULES)) == list(older.values())


def save_without_classifier(folder):
    network = ViTForImageClassification(ViTConfig(**SMALL))
    kept = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("classifier.")}
    network.save_pretrained(folder, state_dict=kept)


@pytest.mark.parametrize(
    "make, message",
    [
        (save_without_classifier, "lacks tensors of a ViTForImageClassification: classifier.bias, classifier.weight"),
        (
            lambda folder: ResNetConfig().save_pretrained(folder),
            "is a 'resnet' of transformers', expected one of vit, ",
        ),
        (lambda folder: folder.mkdir(), "transformers finds no model there"),
        (lambda folder: ViTConfig(**SMALL).save_pretrained(folder), "transformers could not load"),
    ],
    ids=["no classifier", "another network", "empty folder", "no weights"],
)
def test_what_cannot_be_converted(make, message, tmp_path):
    make(tmp_path / "source")
    with pytest.raises(CheckpointError, match=message):
        convert(str(tmp_path / "source"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_refused(tmp_path):
    network = ViTForImageClassification(ViTConfig(**SMALL))
    network.save_pretrained(tmp_path / "vit")
    weights = tmp_path / "vit" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="transformers could not load"):
        convert(str(tmp_path / "vit"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_license_is_taken_from_the_card(tmp_path):
    ViTForImageClassification(ViTConfig(**SMALL)).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n\n# ViT\n")
    conversion = convert(str(tmp_path / "vit"), tmp_path / "out")
    assert conversion.license == "cc-by-4.0" and "license     cc-by-4.0" in str(conversion)
    assert "license: cc-by-4.0" in (tmp_path / "out" / "README.md").read_text()
    assert convert(str(tmp_path / "vit"), tmp_path / "told", license="mit").license == "mit"
