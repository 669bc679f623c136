"""The closed forms beside numpy's least squares, in float64."""

import numpy as np
import pytest
import torch

from sk_transformers import AttentionOptions, SelfAttention
from sk_transformers.calibration.candidates import KINDS, build_candidate, closed_forms, set_parameters
from sk_transformers.calibration.closed_forms import least_squares_key, least_squares_key_and_bias, static_map
from sk_transformers.calibration.statistics import from_tensors, layer_sums

IMAGES, GRID = 12, (3, 4)


@pytest.fixture(autouse=True)
def float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def attention(class_tokens=1, **options):
    options = AttentionOptions(16, GRID, 2, 8, num_class_tokens=class_tokens, qkv_bias=True, **options)
    mixer = SelfAttention(options)
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return mixer.eval()


def query_and_logits(mixer, inputs):
    query, key = (
        projection(inputs).unflatten(2, (2, 8)).transpose(1, 2) for projection in (mixer.q_proj, mixer.k_proj)
    )
    logits = query @ key.mT
    return query.detach().numpy(), (logits - logits.mean(-1, keepdim=True)).detach().numpy()


def test_the_key_is_that_of_numpys_least_squares():
    mixer, inputs = attention(), torch.randn(IMAGES, 13, 16)
    moments = layer_sums(mixer, inputs, GRID, False).moments["query"]
    key = least_squares_key(moments.gram, moments.cross, ridge=0).numpy()
    query, logits = query_and_logits(mixer, inputs)
    for head in range(2):
        expected = np.linalg.lstsq(query[:, head].reshape(-1, 8), logits[:, head].reshape(-1, 13), rcond=None)[0]
        assert np.abs(key[head] - expected.T).max() < 1e-10


def test_the_key_with_a_bias_is_least_squares_over_both():
    """Both at once, in numpy: the features are the query and an indicator of its position."""
    mixer, inputs = attention(), torch.randn(IMAGES, 13, 16)
    moments = layer_sums(mixer, inputs, GRID, False).moments["query"]
    key, bias = least_squares_key_and_bias(**vars(moments), images=IMAGES, ridge=0)
    query, logits = query_and_logits(mixer, inputs)
    positions = np.tile(np.eye(13), (IMAGES, 1))
    for head in range(2):
        features = np.concatenate([query[:, head].reshape(-1, 8), positions], axis=1)
        expected = np.linalg.lstsq(features, logits[:, head].reshape(-1, 13), rcond=None)[0]
        assert np.abs(key[head].numpy() - expected[:8].T).max() < 1e-9
        assert np.abs(bias[head].numpy() - expected[8:]).max() < 1e-9


def test_the_ridge_is_a_fraction_of_the_mean_diagonal():
    gram, cross = torch.randn(1, 30, 5), torch.randn(1, 5, 4)
    gram = gram.mT @ gram
    key = least_squares_key(gram, cross, ridge=0.1)
    by_hand = np.linalg.inv(gram[0].numpy() + 0.1 * np.trace(gram[0].numpy()) / 5 * np.eye(5)) @ cross[0].numpy()
    assert np.abs(key[0].numpy() - by_hand.T).max() < 1e-12


def test_a_static_map_is_the_logarithm_of_mean_weights():
    weights = torch.rand(5, 2, 3, 3).softmax(-1)
    assert (static_map(weights.sum(0), 5).exp() - weights.mean(0)).abs().max() < 1e-15
    assert static_map(torch.zeros(1, 1, 1), 5).isfinite().all()


def test_sums_of_batches_add_up_and_are_kept_by_names():
    mixer, inputs = attention(), torch.randn(IMAGES, 13, 16)
    whole = layer_sums(mixer, inputs, GRID, True).to_tensors()
    parts = layer_sums(mixer, inputs[:5], GRID, True) + layer_sums(mixer, inputs[5:], GRID, True)
    assert parts.images == IMAGES
    for name, tensor in from_tensors(parts.to_tensors()).to_tensors().items():
        assert (tensor - whole[name]).abs().max() < 1e-9, name


@pytest.mark.parametrize("options", [{}, {"learned_temperature": True}, {"mask_diagonal": True}, {"rope_theta": 100.0}])
@pytest.mark.parametrize("class_tokens", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_images_are_reproduced(kind, class_tokens, options):
    """Where all images are one, its mean key and its mean map are its own, and nothing is lost."""
    mixer = attention(class_tokens, **options)
    inputs = torch.randn(1, 12 + class_tokens, 16).expand(4, -1, -1)
    sums = layer_sums(mixer, inputs, GRID, KINDS[kind].mixer == "conv_static_key")
    candidate = build_candidate(mixer, kind)
    errors = {}
    for title, values in closed_forms(kind, sums, mixer).items():
        set_parameters(candidate, values)
        expected, output = mixer(inputs, GRID)[0], candidate(inputs, GRID)[0]
        errors[title] = float((output - expected).detach().abs().max() / expected.detach().abs().max())
    assert min(errors.values()) < (0.1 if kind == "conv_static_key" else 1e-9), errors  # its ridge shrinks that one


@pytest.mark.parametrize("bias", ["full", "relative"])
def test_the_bias_that_attention_has_already_stays(bias):
    mixer = attention(attention_bias=bias)
    inputs = torch.randn(1, 13, 16).expand(4, -1, -1)
    candidate = build_candidate(mixer, "static_key+bias")
    set_parameters(
        candidate, closed_forms("static_key+bias", layer_sums(mixer, inputs, GRID, False), mixer)["least squares"]
    )
    assert (candidate(inputs, GRID)[0] - mixer(inputs, GRID)[0]).abs().max() < 1e-9
