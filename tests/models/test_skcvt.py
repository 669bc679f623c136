"""SKCvT's mixers against their equations, on maps of any size, and what it refuses."""

import copy

import pytest
import torch
from torch.nn import functional as F

from sk_transformers import AttentionOptions, SKCvTBackbone, SKCvTConfig, create_model
from sk_transformers.image_processing import image_processor_for
from sk_transformers.models.static_map import StaticMap
from sk_transformers.models.token_mixers import build_token_mixer
from sk_transformers.pretrained import resize

from ..support.networks import assert_close, drawn, logits
from ..support.small_models import small_config, small_model

MIXERS = ("attention", "static_key", "conv_static_key")
GRID = (5, 6)  # whose keys lie on 3x3


def seen(mixer, name, tokens, class_tokens):
    """What a projection of CvT gives, by torch's own functions, `(batch, heads, tokens, head_dim)`."""
    convolution, projection = mixer.convolutions[name], getattr(mixer, f"{name}_proj")
    maps = tokens[:, class_tokens:].mT.unflatten(2, GRID)
    stride = 1 if name == "q" else 2
    maps = F.conv2d(maps, convolution.depthwise.weight, stride=stride, padding=1, groups=maps.shape[1])
    norm = convolution.batchnorm
    maps = F.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    tokens = torch.cat([tokens[:, :class_tokens], maps.flatten(2).mT], dim=1)
    return F.linear(tokens, projection.weight, projection.bias).unflatten(2, (3, 4)).transpose(1, 2)


@pytest.mark.parametrize("class_tokens", [0, 1])
@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_convolutions_come_before_the_projections(name, class_tokens):
    options = AttentionOptions(
        12, GRID, 3, 4, num_class_tokens=class_tokens, qkv_bias=True, logit_scale=0.3, conv_kernel_size=3, key_stride=2
    )
    mixer = drawn(build_token_mixer(name, options))
    for convolution in mixer.convolutions.values():
        convolution.batchnorm.running_mean.normal_()
        convolution.batchnorm.running_var.uniform_(0.5, 2)
    tokens = torch.randn(2, class_tokens + 30, 12, dtype=torch.float64)
    query, value = (seen(mixer, projection, tokens, class_tokens) for projection in "qv")
    if name == "attention":
        scores = query @ seen(mixer, "k", tokens, class_tokens).mT
    elif name == "static_key":
        scores = query @ mixer.key.mT
    else:
        maps = query[:, :, class_tokens:].mT.flatten(1, 2).unflatten(2, GRID)
        weight = mixer.key.unflatten(2, (3, 3, 4)).permute(0, 1, 4, 2, 3).flatten(0, 1)
        scores = F.conv2d(maps, weight, mixer.key_bias.flatten(), padding=1, groups=3)
        scores = scores.flatten(2).unflatten(1, (3, -1)).mT
        if class_tokens:
            scores = torch.cat([query[:, :, :1] @ mixer.class_key.mT, scores], dim=2)
    weights = (0.3 * scores).softmax(dim=-1)
    expected = mixer.o_proj((weights @ value).transpose(1, 2).flatten(2))
    for implementation in ("sdpa", "eager"):
        assert_close(mixer(tokens, GRID, implementation=implementation)[0], expected)
    assert_close(mixer(tokens, GRID, output_attentions=True)[1], weights)


@pytest.mark.parametrize("name", ["skcvt", "cskcvt", "cvt"])
@torch.no_grad()
def test_a_resized_network_is_the_same(name):
    """As `train --image_size` makes it: keys are those of the maps of that size, from odd ones to a single position."""
    model = drawn(small_model(name))
    for size in ((32, 32), (60, 41), (7, 9), (1, 4)):
        resized, _ = resize(model, image_processor_for(32), list(size))
        images = torch.randn(2, 3, *size, dtype=torch.float64)
        assert_close(logits(resized.double().eval(), images), logits(model, images), 1e-5)  # kept in float32


def test_a_map_of_each_stage_and_the_class_token(tmp_path):
    model = small_model("cskcvt")
    images = torch.randn(2, 3, 32, 32)
    outputs = model.skcvt(images, output_hidden_states=True, output_attentions=True)
    shapes = [tuple(maps.shape) for maps in outputs.hidden_states]
    assert shapes == [(2, 16, 8, 8), (2, 16, 8, 8), (2, 32, 4, 4)]
    assert [tuple(weights.shape) for weights in outputs.attentions] == [(2, 2, 64, 16), (2, 4, 17, 5)]
    assert outputs.pooler_output.shape == (2, 32)
    torch.testing.assert_close(model(images).logits, model.classifier(outputs.pooler_output))
    model.save_pretrained(tmp_path)
    backbone = SKCvTBackbone.from_pretrained(tmp_path, out_features=["stem", "stage2"])
    assert [tuple(feature.shape) for feature in backbone(images).feature_maps] == [(2, 16, 8, 8), (2, 32, 4, 4)]


def test_checkpointed_gradients_are_equal():
    model = small_model("cskcvt", drop_path_rate=0.5).train()
    images, gradients = torch.randn(4, 3, 32, 32), []
    for checkpoints in (False, True):
        one = copy.deepcopy(model)
        if checkpoints:
            one.gradient_checkpointing_enable()
        torch.manual_seed(1)
        one(images, labels=torch.tensor([0, 2, 1, 1])).loss.backward()
        gradients.append([parameter.grad for parameter in one.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"token_mixers": "static_map"}, "Unknown token mixer 'static_map': expected one of 'static_key'"),
        ({"head_dim": 7}, "stage 1 has 16 channels, which heads of 7 do not fill"),
        ({"key_strides": [2, 2, 2]}, "key_strides has 3 values, expected 2: one for each of the stages"),
        ({"conv_kernel_size": 2}, "conv_kernel_size is 2, expected an odd number"),
        ({"logit_scale": "heads"}, "Unknown logit_scale 'heads'.*Did you mean 'head'"),
        ({"patch_sizes": [9, 9], "image_size": 8}, "image_size is 8, expected at least 29, or other patch_strides"),
    ],
)
def test_wrong_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        small_config("skcvt", **settings)


def test_smallest_images():
    model = create_model("skcvt-nano", patch_paddings=0, image_size=64).eval()
    side = model.config.min_image_size
    assert side == 15 and model(torch.randn(1, 3, 15, 20)).logits.isfinite().all()
    with pytest.raises(ValueError, match="14x20 pixels, expected at least 15x15: the last stage would"):
        model(torch.randn(1, 3, 14, 20))
    assert SKCvTConfig().min_image_size == 3


def test_what_strided_keys_exclude():
    options = {"hidden_size": 8, "grid_size": (4, 4), "num_heads": 2, "head_dim": 4}
    with pytest.raises(ValueError, match="mask_diagonal=True takes a key at the place of each query, and key_stride=2"):
        AttentionOptions(**options, mask_diagonal=True, conv_kernel_size=3, key_stride=2)
    with pytest.raises(ValueError, match="key_stride=2 is of convolutions: set conv_kernel_size too"):
        AttentionOptions(**options, key_stride=2)
    with pytest.raises(ValueError, match="A static map has no convolutions before its projections"):
        StaticMap(AttentionOptions(**options, conv_kernel_size=3))
