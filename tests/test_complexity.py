import pytest

from sk_transformers import create_config, create_model
from sk_transformers.complexity import count_macs, count_parameters, macs_by_operator

STEM, DOWNSAMPLING, DEPTHWISE = 7 * 7 * 3, 3 * 3, 7 * 7  # multiply-adds for each output number


def former_macs_by_hand(config):
    """MetaFormer's layers, one product at a time."""
    macs = 0
    previous = None
    for stage, (mixer, width, depth, grid) in enumerate(
        zip(config.token_mixers, config.hidden_sizes, config.depths, config.grid_sizes)
    ):
        positions = grid[0] * grid[1]
        macs += positions * width * (STEM if stage == 0 else DOWNSAMPLING * previous)
        token = {
            "separable_conv": 2 * width * (2 * width) + 2 * width * DEPTHWISE,
            "attention": 4 * width * width + 2 * positions * width,
            "static_key": 3 * width * width + 2 * positions * width,
            "conv_static_key": 3 * width * width + 9 * positions * width + positions * width,
            "conv_key": 3 * width * width + 9 * config.head_dims[stage] * width + 2 * positions * width,
        }[mixer]
        macs += depth * positions * (token + 2 * width * 4 * width)
        previous = width
    return macs + previous * 4 * previous + 4 * previous * config.num_labels


@pytest.mark.parametrize("name", ["caformer-nano", "skaformer-nano", "cskaformer-nano"])
@pytest.mark.parametrize("image_size", [64, 96])
def test_macs_of_a_former_equal_a_hand_calculation(name, image_size):
    config = create_config(name)
    by_hand = former_macs_by_hand(create_config(name, image_size=image_size))
    assert count_macs(config, image_size) == by_hand


def test_products_in_attention_are_an_operator_of_their_own():
    config = create_config("skaformer-nano")
    macs = macs_by_operator(config)
    stages = zip(config.token_mixers, config.hidden_sizes, config.depths, config.grid_sizes)
    assert macs["bmm"] == sum(
        depth * 2 * (grid[0] * grid[1]) ** 2 * width
        for mixer, width, depth, grid in stages
        if mixer in ("static_key", "attention")
    )
    assert sum(macs.values()) == count_macs(config)


def test_macs_of_convolved_keys_equal_a_hand_calculation():
    config = create_config("caformer-nano", token_mixers=["separable_conv", "conv_key", "conv_key", "attention"])
    assert count_macs(config) == former_macs_by_hand(config)


@pytest.mark.parametrize("name", ["skvit-nano-patch4-32", "cskvit-nano-patch4-32", "smvit-nano-patch4-32"])
def test_macs_of_a_vit_equal_a_hand_calculation(name):
    config = create_config(name)
    width, tokens = config.hidden_size, 65
    neighbors = (64 * 9 + 1) / 65 if "csk" in name else 1  # the class token has a key of its own
    with_keys = width**2 + neighbors * tokens * width if "smvit" not in name else 0  # the query and its products
    layer = 2 * width**2 + tokens * width + with_keys + 2 * width * config.intermediate_size
    by_hand = 64 * 4 * 4 * 3 * width + config.num_hidden_layers * tokens * layer + width * config.num_labels
    assert count_macs(config) == pytest.approx(by_hand, rel=1e-12)


def test_the_count_is_the_same_whatever_the_weights_are_kept_in():
    assert count_macs(create_config("skvit-nano-patch4-32", dtype="float16")) == count_macs(
        create_config("skvit-nano-patch4-32")
    )


def test_a_network_that_is_counted_stays_as_it_is():
    model = create_model("smvit-nano-patch4-32")
    count_macs(model.config)
    assert model.config._attn_implementation == "sdpa"


def test_parameters_are_the_models():
    assert count_parameters(create_config("skaformer-nano")) == create_model("skaformer-nano").num_parameters()


@pytest.mark.parametrize("name", ["caformer-s18", "convformer-m36"])
def test_counts_equal_published_ones(name):
    from sk_transformers.zoo import get_variant

    config, published = create_config(name), get_variant(name).published
    assert round(count_parameters(config) / 1e6) == published.parameters
    assert round(count_macs(config) / 1e9, 1) == published.macs
    assert round(count_macs(config, 384) / 1e9, 1) == published.macs_384
