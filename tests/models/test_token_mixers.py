"""The mixers that neither attend nor have static keys, against plain formulas."""

import torch
from torch.nn import functional as F

from sk_transformers.models.grids import maps_to_tokens, tokens_to_maps
from sk_transformers.models.token_mixers import (
    Identity,
    Pooling,
    RandomMixing,
    SeparableConvolution,
)

GRID, WIDTH = (4, 6), 5


def tokens(grid=GRID):
    return torch.randn(2, grid[0] * grid[1], WIDTH, dtype=torch.float64)


def test_tokens_and_maps_are_views_of_each_other():
    x = tokens()
    maps = tokens_to_maps(x, GRID)
    assert maps.shape == (2, WIDTH, *GRID) and maps.is_contiguous(memory_format=torch.channels_last)
    assert maps[1, 2, 3, 4] == x[1, 3 * 6 + 4, 2]
    assert maps_to_tokens(maps).data_ptr() == x.data_ptr() and torch.equal(maps_to_tokens(maps), x)


def test_separable_convolution():
    mixer = SeparableConvolution(WIDTH, GRID).double()
    x = tokens()
    maps = (x @ mixer.fc1.weight.T).relu().square().transpose(1, 2).reshape(2, 2 * WIDTH, *GRID)
    maps = torch.stack(
        [F.conv2d(maps[:, c : c + 1], mixer.depthwise.weight[c : c + 1], padding=3)[:, 0] for c in range(2 * WIDTH)], 1
    )
    expected = maps.flatten(2).transpose(1, 2) @ mixer.fc2.weight.T
    torch.testing.assert_close(mixer(x, GRID)[0], expected)


def test_pooling_is_the_mean_inside_the_map_less_the_token():
    x = tokens()
    maps = x.view(2, *GRID, WIDTH)
    mixed = Pooling(WIDTH, GRID)(x, GRID)[0].view(2, *GRID, WIDTH)
    for row, column in ((0, 0), (2, 3), (3, 5)):
        around = maps[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        torch.testing.assert_close(mixed[:, row, column], around.mean((1, 2)) - maps[:, row, column])


def test_random_mixing_is_its_matrix():
    mixer = RandomMixing(WIDTH, GRID).double()
    x = tokens()
    assert not list(mixer.parameters()) and "matrix" in mixer.state_dict()
    torch.testing.assert_close(mixer.matrix.sum(1), torch.ones(24, dtype=torch.float64))
    torch.testing.assert_close(mixer(x, GRID)[0], torch.einsum("mn,bnc->bmc", mixer.matrix, x))
    constant = torch.ones(2, 15, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(mixer(constant, (3, 5))[0], constant)  # its rows still sum to one


def test_identity():
    x = tokens()
    assert Identity(WIDTH, GRID)(x, GRID)[0] is x
