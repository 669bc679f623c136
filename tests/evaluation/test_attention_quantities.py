"""Numbers of attention weights, beside closed forms and vit-explain's rollout."""

import math

import numpy as np
import pytest
import torch

from sk_transformers.evaluation.attention_quantities import (
    FUSIONS,
    attention_entropy,
    attention_rollout,
    interactions,
    without_smallest,
)

from ..support.networks import assert_close, fill


def weights_of_case(case):
    draws = [
        np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(case["input_shape"]), dtype=np.float32)
        for seed in case["input_seeds"]
    ]
    return [torch.from_numpy(1.5 * draw.astype(np.float64)).softmax(dim=-1) for draw in draws]


def patches_of_class_token(rollout):
    patches = rollout[0, 0, 1:].view(4, 4)
    return patches / patches.max()


def test_rollout_is_vit_explains():
    case, expected = fill.load_case("attention_rollout")
    layers = weights_of_case(case)
    assert_close(patches_of_class_token(attention_rollout(layers)), expected["mean"])


@pytest.mark.parametrize(
    ("name", "fusion", "discard"), [("max", "max", 0), ("min", "min", 0), ("mean_discard_09", "mean", 0.9)]
)
def test_fusions_and_discarding_are_vit_explains(name, fusion, discard):
    """Its division is by column there, and ours by row: the rest is compared by its division."""
    case, expected = fill.load_case("attention_rollout")
    result = torch.eye(17, dtype=torch.float64)
    for weights in weights_of_case(case):
        step = (without_smallest(FUSIONS[fusion](weights), discard) + torch.eye(17)) / 2
        result = step / step.sum(dim=-1) @ result
    assert_close(patches_of_class_token(result), expected[name])
    ours = attention_rollout(weights_of_case(case), fusion, discard)
    torch.testing.assert_close(ours.sum(dim=-1), torch.ones(1, 17, dtype=torch.float64))


def test_rollout_takes_the_same_tokens():
    with pytest.raises(ValueError, match="among 4, 9 tokens: rollout takes layers with the same tokens"):
        attention_rollout([torch.eye(4)[None], torch.eye(9)[None]])


def test_entropy_of_one_token_and_of_all_alike():
    weights = torch.stack([torch.eye(6), torch.full((6, 6), 1 / 6)])  # of two heads
    entropy = attention_entropy(weights)
    torch.testing.assert_close(entropy, torch.tensor([[0.0] * 6, [math.log(6)] * 6]))


@pytest.mark.parametrize("num_class_tokens", [0, 2])
def test_interactions_of_attention_to_itself_and_to_all(num_class_tokens):
    rows, columns = 3, 5
    tokens = rows * columns + num_class_tokens
    itself = interactions(torch.eye(tokens).expand(2, 4, -1, -1), (rows, columns), num_class_tokens)
    for quantity in (itself.arrows, itself.sizes, itself.spread_over_heads, itself.spread_over_images):
        torch.testing.assert_close(quantity, torch.zeros_like(quantity))

    everywhere = interactions(torch.full((1, 1, tokens, tokens), 1 / tokens), (rows, columns), num_class_tokens)
    middle = torch.tensor([(rows - 1) / 2, (columns - 1) / 2])
    positions = torch.cartesian_prod(torch.arange(3.0), torch.arange(5.0))
    torch.testing.assert_close(everywhere.arrows, middle - positions)
    radius = ((rows**2 - 1) / 12 + (columns**2 - 1) / 12) ** 0.5
    torch.testing.assert_close(everywhere.sizes, torch.full((15,), radius))


def test_interactions_where_keys_are_fewer_than_queries():
    nearest = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 1, 2, 2]])  # of five positions in a row, of keys at 0, 2 and 4
    weights = torch.nn.functional.one_hot(nearest, 3).float()[None]
    found = interactions(weights, (1, 5), key_stride=2)
    expected = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(found.arrows[:, 1], expected)  # one head looks left, one right
    torch.testing.assert_close(found.sizes, torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]))


def test_spreads_tell_heads_from_images():
    left, right = torch.zeros(1, 3, 3), torch.zeros(1, 3, 3)
    left[..., 0], right[..., 2] = 1, 1  # all look at the first, or at the last, of three positions in a row
    heads = interactions(torch.cat([left, right])[None].expand(2, -1, -1, -1), (1, 3))
    images = interactions(torch.stack([left, right]), (1, 3))
    ones, zeros = torch.ones(3), torch.zeros(3)
    torch.testing.assert_close((heads.spread_over_heads, heads.spread_over_images), (ones, zeros))
    torch.testing.assert_close((images.spread_over_heads, images.spread_over_images), (zeros, ones))
    torch.testing.assert_close(images.sizes, ones)  # a mean image sees both ends


def test_positions_that_see_class_tokens_alone_look_at_themselves():
    weights = torch.zeros(1, 2, 5, 5)
    weights[..., 0] = 1
    found = interactions(weights, (2, 2), num_class_tokens=1)
    assert not any(quantity.any() for quantity in (found.arrows, found.sizes, found.spread_over_heads))


def test_weights_of_windows_are_refused():
    with pytest.raises(ValueError, match="are of 4 tokens, and a grid of 4x4 with 0 class tokens has 16"):
        interactions(torch.full((4, 1, 4, 4), 0.25), (4, 4))
