"""Swin beside what it becomes, in float64: the authors' networks, transformers' and timm's, at any size."""

import re

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from transformers import AutoModelForImageClassification, SwinConfig, SwinForImageClassification, SwinModel

from sk_transformers import SKSwinConfig, SKSwinForImageClassification
from sk_transformers.conversion import CheckpointError, convert

from ..support.networks import assert_close, drawn, fill, logits

SMALL = {"image_size": 64, "embed_dim": 16, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4}
SIZES = [(64, 64), (96, 64), (70, 90), (128, 128)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mixer", "window_keys"), [("swin_t", "attention", "shared"), ("swin_t_stu", "static_key", "separate")]
)
def test_logits_equal_the_authors(name, mixer, window_keys, tmp_path):
    case, expected = fill.load_case(name)
    tensors = fill.state_dict(case)
    torch.save(tensors, tmp_path / "source.pth")
    conversion = convert(str(tmp_path / "source.pth"), tmp_path / "out", image_size=(32, 32), license="mit")
    assert f"{len(tensors)} read, {len(tensors)} used, none left over, none missing" in str(conversion)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    config = model.config
    assert (set(config.token_mixers), config.window_keys) == ({mixer}, window_keys)
    assert (config.image_size, config.patch_size, config.window_size) == (32, 2, 4)
    assert config.downsampling == [2, 2, 1]
    # Their table of distances serves all heads of a layer, where each head of ours has its own. The case's count
    # has 3,072 more than its tensors hold: as much as two masks for each of the six shifted layers.
    heads = [width // config.head_dim for width in config.hidden_sizes]
    shared = sum(depth * (count - 1) * 7 * 7 for depth, count in zip(config.depths, heads))
    assert model.num_parameters() == case["parameters"] + shared - 6 * 2 * 16 * 16
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        assert_close(logits(model, fill.pixel_values(case)), next(iter(expected.values())))


AUTHORS_NAMES = (
    (r"^skswin\.", ""),
    (r"^layernorm", "mlp_head.0"),
    (r"^classifier", "mlp_head.1"),
    (r"^stem\.projection", "stage1.patch_partition.linear"),
    (r"^stages\.1\.downsampling\.projection", "stage2.patch_partition.linear"),
    (r"^stages\.0\.layers", "stage1.layers.0"),
    (r"^stages\.1\.layers", "stage2.layers.0"),
    (r"layernorm_before", "attention_block.fn.norm"),
    (r"layernorm_after", "mlp_block.fn.norm"),
    (r"mlp\.fc1", "mlp_block.fn.fn.net.0"),
    (r"mlp\.fc2", "mlp_block.fn.fn.net.2"),
    (r"mixer\.o_proj", "attention_block.fn.fn.to_out"),
    (r"mixer\.attention_bias\.bias", "attention_block.fn.fn.pos_embedding"),
    (r"mixer\.", "attention_block.fn.fn."),
)


def under_the_authors_names(model, convolution):
    """An SKSwin's tensors as the authors' code would keep them; a layer has one table of distances for all heads."""
    theirs = {}
    for name, tensor in model.state_dict().items():
        for pattern, replacement in AUTHORS_NAMES:
            name = re.sub(pattern, replacement, name)
        theirs[name] = tensor[0].reshape(7, 7).flip(0, 1) if name.endswith("pos_embedding") else tensor
    for query in [name for name in theirs if name.endswith(".q_proj.weight")]:
        value, key = (query.replace("q_proj", other) for other in ("v_proj", "key_conv"))
        theirs[query.replace("q_proj", "to_qv")] = torch.cat([theirs.pop(query), theirs.pop(value)])
        theirs[query.replace("q_proj", convolution)] = theirs.pop(key)
    return theirs


@pytest.mark.parametrize(("convolution", "is_shared"), [("k", False), ("to_k", True)])
@torch.no_grad()
def test_a_key_convolved_from_queries(convolution, is_shared, tmp_path):
    """Of each head by itself or by one kernel for all, with a bias, which every key has and no weight shows."""
    config = SKSwinConfig(
        image_size=32, patch_size=2, depths=[2, 2], hidden_sizes=[16, 32], head_dim=8, window_size=4, num_labels=3,
        token_mixers="conv_key", qkv_bias=False, patch_norms=False, final_norm="pooled", shift_lone_window=True,
    )  # fmt: skip
    model = drawn(SKSwinForImageClassification(config))
    for name, tensor in model.state_dict().items():
        if name.endswith("attention_bias.bias"):
            tensor.copy_(tensor[:1].expand_as(tensor))
        elif name.endswith("key_conv.weight") and is_shared:
            tensor.copy_(tensor[:8].repeat(len(tensor) // 8, 1, 1, 1))
    tensors = under_the_authors_names(model, convolution)
    for name in [name for name in tensors if name.endswith(f"{convolution}.weight")]:
        tensors[name] = tensors[name][:8] if is_shared else tensors[name]
        tensors[name.replace(".weight", ".bias")] = torch.randn(len(tensors[name]), dtype=torch.float64)
    torch.save(tensors, tmp_path / "source.pth")
    conversion = convert(str(tmp_path / "source.pth"), tmp_path / "out", image_size=(32, 32), license="mit")
    found = conversion.model.config
    assert (found.token_mixers, found.head_dim, found.window_size) == (["conv_key"] * 2, 8, 4)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert_close(logits(conversion.model, images), logits(model, images))


def test_transformers_swin(tmp_path):
    # Theirs keeps the smaller window that it takes for a small map, so it is loaded anew for each size.
    drawn(SwinForImageClassification(SwinConfig(**SMALL, num_labels=3))).save_pretrained(tmp_path / "swin")
    conversion = convert(str(tmp_path / "swin"), tmp_path / "out", license="mit")
    assert conversion.difference is not None and conversion.difference < 1e-9
    for size in SIZES:
        theirs = SwinForImageClassification.from_pretrained(tmp_path / "swin").double().eval()
        images = torch.randn(2, 3, *size, dtype=torch.float64)
        assert_close(logits(conversion.model, images), logits(theirs, images, interpolate_pos_encoding=True))


def test_transformers_swin_without_a_classifier(tmp_path):
    drawn(SwinModel(SwinConfig(**SMALL))).save_pretrained(tmp_path / "swin")
    conversion = convert(str(tmp_path / "swin"), tmp_path / "out", license="mit")
    assert type(conversion.model).__name__ == "SKSwinModel" and conversion.difference < 1e-9


@pytest.mark.parametrize("option", [{"hidden_act": "relu"}, {"use_absolute_embeddings": True}])
def test_an_option_that_skswin_does_not_have_is_named(option, tmp_path):
    (name,) = option
    SwinForImageClassification(SwinConfig(**SMALL, **option)).save_pretrained(tmp_path / "swin")
    with pytest.raises(CheckpointError, match=f"The source has {name}=.*, and SKSwin can only do {name}="):
        convert(str(tmp_path / "swin"), tmp_path / "out", license="mit")


def test_a_file_of_timms_swin(tmp_path):
    shape = {"embed_dim": 16, "depths": (2, 2, 2), "num_heads": (2, 4, 8), "window_size": 4, "num_classes": 3}
    network = drawn(SwinTransformer(img_size=64, **shape))
    torch.save(network.state_dict(), tmp_path / "source.pth")
    conversion = convert(str(tmp_path / "source.pth"), tmp_path / "out", image_size=(64, 64), license="mit")
    assert conversion.difference is not None and conversion.difference < 1e-9
    # Where windows do not fill a map timm shifts before it pads; where one side is a single window it shifts along the
    # other.
    for size in [(64, 64), (128, 128), (128, 192)]:
        theirs = SwinTransformer(img_size=size, strict_img_size=False, **shape).double().eval()
        theirs.load_state_dict(network.state_dict())
        images = torch.randn(2, 3, *size, dtype=torch.float64)
        assert_close(logits(conversion.model, images), logits(theirs, images))


@pytest.mark.slow
def test_timm_by_name(tmp_path):
    conversion = convert("timm:swin_tiny_patch4_window7_224", tmp_path / "out", random=True)
    assert conversion.difference is not None and conversion.difference < 1e-9
    assert not conversion.assumed
    found, expected = conversion.model.config, SKSwinConfig(token_mixers="attention")
    for field in ("image_size", "patch_size", "depths", "hidden_sizes", "token_mixers", "head_dim", "window_size"):
        assert getattr(found, field) == getattr(expected, field)
