"""Talking heads and class attention against their equations, and what SKCaiT refuses."""

import pytest
import torch

from sk_transformers import AttentionOptions, SKCaiTConfig, SKCaiTModel, create_config
from sk_transformers.calibration.source import check_attention
from sk_transformers.models.attention import split_heads, wants_reference
from sk_transformers.models.talking_heads import TalkingHeads
from sk_transformers.models.token_mixers import ATTENTION_MIXERS

from ..support.networks import assert_close, drawn
from ..support.small_models import small_config, small_model

GRID = (3, 4)


@pytest.mark.parametrize(
    ("mixer", "class_tokens"),
    [(mixer, count) for mixer in ATTENTION_MIXERS for count in ((0,) if mixer == "conv_key" else (0, 1))],
)
@pytest.mark.parametrize("kind", ["linear", "affine"])
@torch.no_grad()
def test_heads_are_mixed_before_softmax_and_after_it(mixer, kind, class_tokens):
    options = {
        "hidden_size": 12,
        "grid_size": GRID,
        "num_heads": 3,
        "head_dim": 4,
        "num_class_tokens": class_tokens,
    }
    talking = drawn(ATTENTION_MIXERS[mixer](AttentionOptions(**options, talking_heads=kind)))
    plain = ATTENTION_MIXERS[mixer](AttentionOptions(**options)).double().eval()
    plain.load_state_dict(talking.state_dict(), strict=False)
    tokens = torch.randn(2, class_tokens + 12, 12, dtype=torch.float64)
    # Logits are the weights' logarithm but for a number a query and head, which softmax does not see.
    _, weights = plain(tokens, GRID, output_attentions=True)
    before, after = talking.talking_heads.before, talking.talking_heads.after
    heard = torch.einsum("gh,bhqk->bgqk", before.weight, weights.log()).softmax(dim=-1)
    mixed = torch.einsum("gh,bhqk->bgqk", after.weight, heard)
    mixed = mixed if after.bias is None else mixed + after.bias[:, None, None]
    expected = plain.o_proj((mixed @ split_heads(plain.v_proj(tokens), 3)).transpose(1, 2).flatten(2))
    for implementation in ("sdpa", "eager"):
        output, _ = talking(tokens, GRID, implementation=implementation)
        assert_close(output, expected)
    output, returned = talking(tokens, GRID, output_attentions=True)
    assert_close(output, expected)
    assert_close(returned, heard.expand_as(returned))


@pytest.mark.parametrize("name", ["cait", "skcait"])
def test_fresh_heads_do_not_talk(name):
    talking = small_model(name)
    silent = small_model(name, talking_heads=None)
    silent.load_state_dict(talking.state_dict(), strict=False)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(talking(images).logits, silent(images).logits)


@pytest.mark.parametrize("normalize_patches", [True, False])
@torch.no_grad()
def test_the_class_token_reads_the_patches(normalize_patches):
    config = small_config("cait", num_class_layers=1, normalize_patches=normalize_patches)
    model = drawn(SKCaiTModel(config))
    outputs = model(torch.randn(2, 3, 16, 16, dtype=torch.float64), output_attentions=True)
    layer, patches = model.pooler.class_layers[0], outputs.last_hidden_state
    token = model.pooler.cls_token.expand(2, -1, -1)
    seen = layer.layernorm_before(patches) if normalize_patches else patches
    tokens = torch.cat([layer.layernorm_before(token), seen], dim=1)
    heads = [split_heads(getattr(layer.mixer, name)(tokens), 2) for name in ("q_proj", "k_proj", "v_proj")]
    weights = (heads[0][:, :, :1] @ heads[1].mT * 8**-0.5).softmax(dim=-1)
    read = layer.mixer.o_proj((weights @ heads[2]).transpose(1, 2).flatten(2))
    token = token + layer.mixer_scale.scale * read
    token = token + layer.mlp_scale.scale * layer.mlp(layer.layernorm_after(token))
    assert_close(outputs.pooler_output, model.layernorm(token)[:, 0])
    assert_close(outputs.attentions[-1], weights)


def test_a_kernel_that_cannot_mix_heads_is_refused():
    with pytest.raises(ValueError, match="computes softmax only, and talking_heads is set: use 'eager'"):
        wants_reference("flex_attention", False, talking_heads=TalkingHeads(2, "linear"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pooling": "cls"}, "Unknown pooling 'cls': expected one of 'class_layers'"),
        ({"num_class_layers": 0}, "num_class_layers is 0, expected a number of at least 1"),
        ({"talking_heads": "afine"}, "Unknown talking_heads 'afine'.*Did you mean 'affine'"),
        ({"class_talking_heads": True}, "Unknown class_talking_heads True"),
        ({"distillation_token": True}, "distillation_token needs a class token in all layers"),
    ],
)
def test_wrong_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        SKCaiTConfig(**settings)


def test_calibration_refuses_mixed_heads():
    with pytest.raises(ValueError, match="cait has talking_heads='affine': what takes the place of attention"):
        check_attention("cait", create_config("cait-nano-patch4-32"))
