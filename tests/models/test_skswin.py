"""SKSwin on maps of any size, with every mixer, and the contract of a transformers model."""

import copy

import pytest
import torch

from sk_transformers import SKSwinBackbone, SKSwinConfig, SKSwinForImageClassification, create_model
from sk_transformers.hub.cards.diagram import draw, mixer_summary
from sk_transformers.image_processing import image_processor_for
from sk_transformers.pretrained import resize

from ..support.networks import assert_close, drawn, logits

SMALL = {
    "image_size": 64, "depths": [2, 2, 2], "hidden_sizes": [16, 32, 64], "head_dim": 8, "window_size": 4,
    "num_labels": 3,
}  # fmt: skip
MIXERS = [
    ("attention", "shared"),
    ("static_key", "shared"),
    ("static_key", "separate"),
    ("conv_static_key", "shared"),
    ("static_map", "shared"),
    ("conv_key", "shared"),
]


@pytest.mark.parametrize(("mixer", "window_keys"), MIXERS)
def test_kernels_agree_and_gradients_reach_every_parameter(mixer, window_keys):
    config = SKSwinConfig(**SMALL, token_mixers=mixer, window_keys=window_keys)
    model = drawn(SKSwinForImageClassification(config))
    for size in ((64, 64), (32, 32), (70, 90)):
        images = torch.randn(2, 3, *size, dtype=torch.float64)
        model.set_attn_implementation("sdpa")
        found = logits(model, images)
        model.set_attn_implementation("eager")
        assert_close(found, logits(model, images))
    model.train()(torch.randn(2, 3, 64, 64, dtype=torch.float64), labels=torch.tensor([0, 2])).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize(("mixer", "window_keys"), MIXERS)
def test_saves_loads_checkpoints_and_is_a_backbone(mixer, window_keys, tmp_path):
    model = SKSwinForImageClassification(SKSwinConfig(**SMALL, token_mixers=mixer, window_keys=window_keys)).eval()
    images = torch.randn(2, 3, 64, 64)
    model.save_pretrained(tmp_path)
    loaded = SKSwinForImageClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded, images), logits(model, images))

    grads = []
    for checkpoints in (False, True):
        trained = copy.deepcopy(model).train()
        if checkpoints:
            trained.gradient_checkpointing_enable()
        trained(images, labels=torch.tensor([0, 2])).loss.backward()
        grads.append([parameter.grad for parameter in trained.parameters()])
    torch.testing.assert_close(grads[0], grads[1])

    outputs = model(images, output_attentions=True)
    assert len(outputs.attentions) == 6
    assert outputs.attentions[0].shape == (2 * 16, 2, 16, 16)  # of each of 4x4 windows
    backbone = SKSwinBackbone.from_pretrained(tmp_path, out_features=["stage1", "stage3"])
    maps = backbone(images).feature_maps
    assert [tuple(feature.shape) for feature in maps] == [(2, 16, 16, 16), (2, 64, 4, 4)]


def test_separate_keys_are_for_static_keys():
    with pytest.raises(ValueError, match="only 'static_key' has a key for each window"):
        SKSwinConfig(token_mixers="conv_static_key", window_keys="separate")


@pytest.mark.parametrize(("mixer", "window_keys"), MIXERS)
@torch.no_grad()
def test_a_resized_network_is_the_same(mixer, window_keys):
    """As `train --image_size` makes it: keys of single windows are those of the map, resized; others belong to none."""
    settings = {"patch_size": 2, "depths": [2, 2, 2], "token_mixers": [mixer] * 3, "window_keys": window_keys}
    model = create_model("skswin-nano", **settings).eval()
    resized, _ = resize(model, image_processor_for(32), 48)
    assert resized.config.image_size == 48
    images = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(logits(resized.eval(), images), logits(model, images), rtol=1e-4, atol=1e-5)


def test_layers_of_a_stage_have_mixers_of_their_own():
    mixers, biases = ["attention", "static_map", "static_key", "attention"], ["relative", "full", None, "relative"]
    shape = {**SMALL, "depths": [1, 3], "hidden_sizes": [16, 32]}
    model = drawn(SKSwinForImageClassification(SKSwinConfig(**shape, token_mixers=mixers, attention_bias=biases)))
    layers = [layer for stage in model.skswin.stages for layer in stage.layers]
    assert [type(layer.mixer).__name__ for layer in layers] == [
        "SelfAttention", "StaticMap", "StaticKeyAttention", "SelfAttention",
    ]  # fmt: skip
    assert [layer.mixer.attention_bias and layer.mixer.attention_bias.kind for layer in layers] == biases
    assert logits(model, torch.randn(1, 3, 70, 90, dtype=torch.float64)).isfinite().all()
    assert draw(model).splitlines()[2:7] == [
        "stage 1  16 x 16 x 16  .  self-attention",
        "stage 2  8 x 8 x 32    .  static maps",
        "                       K  static keys (SKA)",
        "                          4 heads, 16 keys of 8",
        "                       .  self-attention",
    ]
    assert mixer_summary(model.config) == (
        "self-attention in layer 1, static maps in layer 2, static keys (SKA) in layer 3 and self-attention in layer 4"
    )
    with pytest.raises(ValueError, match="token_mixers has 3 values, expected 2: one for each of the stages, or 4"):
        SKSwinConfig(**shape, token_mixers=mixers[:3])
