"""A folded network computes what it computed before, and holds as constants what no image changes."""

import pytest
import torch

from sk_transformers.hub.folding import FoldedMixer, PlusTokens, fold
from sk_transformers.models.layers import StarReLU
from sk_transformers.models.static_key import ConvStaticKeyAttention

from ..support.small_models import ALL, small_model


@pytest.mark.parametrize("name", [*ALL, "cvt"])
def test_logits_stay(name):
    torch.manual_seed(0)
    model = small_model(name).double()
    with torch.no_grad():  # or scales would be one and biases zero
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        images = torch.randn(2, 3, model.config.image_size, model.config.image_size, dtype=torch.float64)
        before, expected = model.state_dict(), model(images).logits
        folded = fold(model)
        torch.testing.assert_close(folded(images).logits, expected, rtol=1e-9, atol=1e-9)
        assert expected.std() > 1e-3
    after = model.state_dict()
    assert before.keys() == after.keys() and all(after[key].equal(value) for key, value in before.items())


def test_nothing_is_left_to_fold():
    mixers = ["separable_conv", "conv_static_key", "static_key", "static_map"]
    modules = list(fold(small_model("skaformer", token_mixers=mixers, depths=[1, 1, 1, 1])).modules())
    assert not any(isinstance(module, StarReLU) for module in modules)
    assert sum(isinstance(module, FoldedMixer) for module in modules) == 3
    assert sum(isinstance(module, PlusTokens) for module in modules) == 1


def test_neighborhoods_lie_as_a_key_does():
    """Each of a lone query's nine places reads its own part of the key."""
    model = small_model("cskaformer", depths=[1, 1, 1, 1])
    mixer = next(module for module in model.modules() if isinstance(module, ConvStaticKeyAttention))
    folded = next(module for module in fold(model).modules() if isinstance(module, FoldedMixer))
    height, width = mixer.grid_size
    query = torch.zeros(1, 2, height * width, 8)
    query[:, :, width + 1, 3] = 1.0  # of the position (1, 1)
    neighbors = folded.with_neighbors(query)
    for row in range(3):
        for column in range(3):
            seen = neighbors[0, 0, row * width + column].nonzero().flatten().tolist()
            assert seen == [8 * (3 * (2 - row) + 2 - column) + 3, 9 * 8]
