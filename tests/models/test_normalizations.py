"""Sparse normalizations: against deep-spin's numbers, their definitions and softmax's contracts."""

import pytest
import torch

from sk_transformers.models.attention import wants_reference
from sk_transformers.models.attention_options import AttentionOptions
from sk_transformers.models.configuration_checks import ATTENTION_NORMALIZATIONS
from sk_transformers.models.normalizations import normalize
from sk_transformers.models.reference import softmax_attention
from sk_transformers.models.token_mixers import ATTENTION_MIXERS

from ..support.networks import fill
from ..support.small_models import small_model

SPARSE = ("sparsemax", "entmax15")
GRID = (3, 4)


@pytest.mark.parametrize("name", SPARSE)
def test_values_and_gradients_are_deep_spins(name):
    case, expected = fill.load_case("entmax")
    logits = expected["logits"].requires_grad_()
    weights = normalize(logits, name)
    torch.testing.assert_close(weights, expected[name], rtol=0, atol=1e-9)
    cotangent = fill.state_dict(case)["cotangent"]
    (gradient,) = torch.autograd.grad(weights, logits, cotangent)
    torch.testing.assert_close(gradient, expected[f"{name}.grad"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", SPARSE)
def test_gradients_are_those_of_finite_differences(name):
    logits = (2 * torch.randn(2, 3, 7, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: normalize(z, name), logits)
    assert torch.autograd.gradgradcheck(lambda z: normalize(z, name), logits)


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    logits = torch.randn(5, 6, dtype=torch.float64)
    weights = normalize(logits, "sparsemax")
    others = torch.rand(1000, 1, 6, dtype=torch.float64).pow(3)
    others = others / others.sum(dim=-1, keepdim=True)
    assert ((weights - logits).norm(dim=-1) <= (others - logits).norm(dim=-1)).all()


@pytest.mark.parametrize("name", ATTENTION_NORMALIZATIONS)
def test_one_token_alike_tokens_and_shifts(name):
    assert normalize(torch.randn(3, 1), name).eq(1).all()
    torch.testing.assert_close(normalize(torch.full((2, 5), -7.0), name), torch.full((2, 5), 0.2))
    logits = torch.randn(4, 9, dtype=torch.float64)
    torch.testing.assert_close(normalize(logits + 1e3, name), normalize(logits, name))
    torch.testing.assert_close(normalize(logits.flip(-1), name), normalize(logits, name).flip(-1))


def test_the_sparser_one_has_weight_where_the_other_has():
    logits = 2 * torch.randn(50, 20, dtype=torch.float64)
    sparsemax, entmax15 = (normalize(logits, name) > 0 for name in SPARSE)
    assert (sparsemax <= entmax15).all()
    assert sparsemax.float().mean() < entmax15.float().mean() < 0.5


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rows_sum_to_one_in_every_precision_and_under_masks(name, dtype):
    logits = (20 * torch.randn(64, 300)).to(dtype)
    logits[:, 100:] += torch.finfo(dtype).min
    logits[0] = torch.finfo(dtype).min  # all masked
    logits[1, 1:] = float("-inf")  # two masks of the lowest number, one on the other
    logits.requires_grad_()
    weights = normalize(logits, name)
    assert weights.dtype == dtype
    torch.testing.assert_close(weights.float().sum(dim=-1), torch.ones(64), rtol=0, atol=1e-2)
    assert weights[1:, 100:].eq(0).all()
    (gradient,) = torch.autograd.grad(weights.float().square().sum(), logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("count", [196, 3136])
def test_float32_is_float64_over_many_keys(count):
    for spread in (1e-3, 0.3, 5):
        logits = spread * torch.randn(20, count, dtype=torch.float64)
        for name in SPARSE:
            weights = normalize(logits, name)
            torch.testing.assert_close(normalize(logits.float(), name).double(), weights, rtol=1e-4, atol=2e-6)


# The mixers


def make(mixer_name, normalization, **options):
    if mixer_name == "static_map":
        options.pop("learned_temperature", None)
    if mixer_name == "conv_key":
        options.pop("num_class_tokens", None)
    mixer = ATTENTION_MIXERS[mixer_name](
        AttentionOptions(12, GRID, 2, 6, attention_normalization=normalization, **options)
    ).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_()
    return mixer


@pytest.mark.parametrize("mixer_name", ATTENTION_MIXERS)
@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize(
    "options",
    [
        {"num_class_tokens": 1, "mask_diagonal": True, "learned_temperature": True, "attention_bias": "relative"},
        {"attention_bias": "full"},
    ],
)
def test_a_mixers_weights_are_of_the_logits_that_softmax_gets(mixer_name, name, options):
    """They are the logarithm of softmax's weights, to a constant of each query."""
    mixer, soft = make(mixer_name, name, **options), make(mixer_name, "softmax", **options)
    soft.load_state_dict(mixer.state_dict())
    for training in (True, False):
        mixer.train(training)
        tokens = torch.randn(2, 12 + mixer.num_class_tokens, 12, dtype=torch.float64)
        weights = soft(tokens, output_attentions=True)[1].log()
        value = mixer.v_proj(tokens).unflatten(2, (2, -1)).transpose(1, 2)
        output, weights = softmax_attention(weights, value, None, name)
        expected = mixer.o_proj(output.transpose(1, 2).flatten(2))
        for implementation in ("sdpa", "eager"):
            found, found_weights = mixer(tokens, None, True, implementation)
            torch.testing.assert_close(found_weights, weights)
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(mixer(tokens, implementation=implementation)[0], expected)
        assert weights.eq(0).any()


@pytest.mark.parametrize("mixer_name", ["static_key", "conv_static_key", "static_map"])
def test_padding_of_windows_has_no_weight(mixer_name):
    mixer = make(mixer_name, "entmax15", static_key_resolution="window")
    tokens = torch.randn(2, 35, 12, dtype=torch.float64)
    _, weights = mixer(tokens, (5, 7), output_attentions=True)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1], dtype=torch.float64))
    assert weights.view(2, 2, 2, 2, 12, 3, 4)[:, :, 1, :, :, :, 3].eq(0).all()  # the last column of windows


def test_kernels_of_softmax_are_refused():
    with pytest.raises(ValueError, match="'flex_attention' computes softmax only, .*: use 'eager'"):
        wants_reference("flex_attention", False, "sparsemax")
    model = small_model("sparse-vit")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="attention_normalization is 'entmax15'"):
        model(torch.randn(1, 3, 16, 16))


def test_unknown_ones_are_named():
    with pytest.raises(ValueError, match="Unknown attention_normalization 'sparse-max'.*Did you mean 'sparsemax'"):
        small_model("skvit", attention_normalization="sparse-max")
    with pytest.raises(ValueError, match="Unknown attention_normalization 'entmax'"):
        AttentionOptions(12, GRID, 2, 6, attention_normalization="entmax")
