"""Configurations read off the tensors of networks of any shape, which then give the same logits."""

import random

import pytest
import torch

from sk_transformers import (
    SKFormerConfig,
    SKFormerForImageClassification,
    SKViTConfig,
    SKViTForImageClassification,
)
from sk_transformers.conversion import CheckpointError, convert
from sk_transformers.models.configuration_checks import size_pair

from ..support.networks import assert_close, drawn, logits, metaformer_state_dict, small_vit_state_dict

STATIC = ("static_key", "conv_static_key")
SAME_FORMER_FIELDS = (
    "depths", "hidden_sizes", "token_mixers", "query_projection", "mlp_ratio", "use_mlp_head", "norm",
    "num_channels", "num_labels",
)  # fmt: skip
SAME_VIT_FIELDS = (
    "image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim",
    "intermediate_size", "token_mixers", "query_projection", "qkv_bias", "learned_temperature", "mask_diagonal",
    "shifted_patch_tokenization", "layer_norm_eps", "pooling", "num_channels", "num_labels",
)  # fmt: skip


def convert_tensors(tensors, tmp_path, **hints):
    torch.save(tensors, tmp_path / "source.pth")
    return convert(str(tmp_path / "source.pth"), tmp_path / "out", license="mit", **hints)


def random_former(seed):
    """A network of any mixers, and the hints that its tensors leave open."""
    choose = random.Random(seed)
    mixers = [
        choose.choice([*STATIC, "attention", "separable_conv", "random", "pooling", "identity"]) for _ in range(4)
    ]
    has_mlp_head, attention_head_dim = choose.random() < 0.7, choose.choice([4, 8])
    head_dims = [attention_head_dim if m == "attention" else choose.choice([2, 4]) for m in mixers]
    has_static_key = any(mixer in STATIC for mixer in mixers)
    config = SKFormerConfig(
        image_size=choose.choice([32, 64, 96]),
        depths=[choose.randint(1, 2) for _ in range(4)],
        hidden_sizes=[8 * choose.randint(1, 3) for _ in range(4)],
        token_mixers=mixers,
        head_dim=head_dims,
        query_projection=not has_static_key or choose.random() < 0.5,
        mlp_ratio=choose.choice([2, 4]),
        use_mlp_head=has_mlp_head,
        norm="layer" if has_mlp_head else "group",
        num_channels=choose.choice([1, 3]),
        num_labels=choose.randint(2, 12),
    )
    hints = {"head_dim": attention_head_dim, "token_mixers": mixers}
    if not has_static_key and "random" not in mixers:
        hints["image_size"] = size_pair("image_size", config.image_size)
    return config, hints


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_any_former(seed, tmp_path):
    config, hints = random_former(seed)
    source = drawn(SKFormerForImageClassification(config), seed)
    conversion = convert_tensors(metaformer_state_dict(source), tmp_path, **hints)

    found = conversion.model.config
    assert {field: getattr(found, field) for field in SAME_FORMER_FIELDS} == {
        field: getattr(config, field) for field in SAME_FORMER_FIELDS
    }
    assert found.image_size == config.image_size
    images = torch.randn(2, config.num_channels, 64, 96, dtype=torch.float64)
    assert_close(logits(conversion.model, images), logits(source, images), 1e-12)


def random_vit(seed):
    choose = random.Random(seed)
    mixers = choose.choice(["static_key", "conv_static_key", "attention", [*STATIC, "static_key"]])
    patch_size, side, head_dim = choose.choice([2, 4]), choose.randint(2, 5), choose.choice([4, 8])
    heads = choose.randint(1, 3)
    query_projection = mixers == "attention" or choose.random() < 0.5
    config = SKViTConfig(
        image_size=patch_size * side,
        patch_size=patch_size,
        hidden_size=12 if query_projection else heads * head_dim,
        num_hidden_layers=len(mixers) if isinstance(mixers, list) else choose.randint(1, 3),
        num_attention_heads=heads,
        head_dim=head_dim,
        intermediate_size=choose.choice([8, 20]),
        token_mixer=mixers,
        query_projection=query_projection,
        qkv_bias=False,
        mask_diagonal=True,
        learned_temperature=True,
        shifted_patch_tokenization=True,
        layer_norm_eps=1e-5,
        num_labels=choose.randint(2, 12),
    )
    return config, {"head_dim": head_dim} if mixers == "attention" else {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_any_small_data_vit(seed, tmp_path):
    config, hints = random_vit(seed)
    source = drawn(SKViTForImageClassification(config), seed)
    conversion = convert_tensors(small_vit_state_dict(source), tmp_path, **hints)

    assert {field: getattr(conversion.model.config, field) for field in SAME_VIT_FIELDS} == {
        field: getattr(config, field) for field in SAME_VIT_FIELDS
    }
    images = torch.randn(2, 3, config.image_size, config.image_size, dtype=torch.float64)
    assert_close(logits(conversion.model, images), logits(source, images), 1e-12)


def test_a_stem_of_another_kernel_is_asked_for(tmp_path):
    config = SKFormerConfig(
        image_size=32, stem_kernel_size=3, stem_stride=2, depths=[1] * 4, hidden_sizes=[8] * 4, head_dim=8
    )
    with pytest.raises(CheckpointError, match="kernel has 3 pixels, expected MetaFormer's 7.*its config.json"):
        convert_tensors(metaformer_state_dict(drawn(SKFormerForImageClassification(config))), tmp_path)


@pytest.mark.parametrize("image_size", [(64, 128), (128, 64)])
def test_a_grid_that_is_no_square_is_asked_for(image_size, tmp_path):
    mixers = ["separable_conv", "static_key", "conv_static_key", "attention"]
    config = SKFormerConfig(
        image_size=image_size, depths=[1] * 4, hidden_sizes=[8, 8, 8, 32], token_mixers=mixers, head_dim=[8, 4, 8, 32]
    )
    source = drawn(SKFormerForImageClassification(config))
    tensors = metaformer_state_dict(source)
    with pytest.raises(CheckpointError, match=r"pass --image_size HEIGHT WIDTH"):
        convert_tensors(tensors, tmp_path)
    with pytest.raises(CheckpointError, match=r"stage 2 has 64 positions where the tensors have 128"):
        convert_tensors(tensors, tmp_path, image_size=(64, 64))
    conversion = convert_tensors(tensors, tmp_path, image_size=image_size)
    assert conversion.model.config.image_size == image_size
    images = torch.randn(1, 3, *image_size, dtype=torch.float64)
    assert_close(logits(conversion.model, images), logits(source, images), 1e-12)


def test_a_non_square_vit_is_asked_for(tmp_path):
    config = SKViTConfig(
        image_size=(8, 16), patch_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, head_dim=8,
        intermediate_size=8, qkv_bias=False, shifted_patch_tokenization=True, layer_norm_eps=1e-5,
        learned_temperature=True, mask_diagonal=True,
    )  # fmt: skip
    source = drawn(SKViTForImageClassification(config))
    tensors = small_vit_state_dict(source)
    with pytest.raises(CheckpointError, match=r"8 patches do not make a square.*--image_size"):
        convert_tensors(tensors, tmp_path)
    with pytest.raises(CheckpointError, match=r"8x8 pixels does not make 8 patches"):
        convert_tensors(tensors, tmp_path, image_size=(8, 8))
    assert convert_tensors(tensors, tmp_path, image_size=(8, 16)).model.config.grid_size == (2, 4)


def small_former(**settings):
    sizes = {"image_size": 32, "depths": [1] * 4, "hidden_sizes": [8] * 4, "head_dim": 8, "num_labels": 3}
    return drawn(SKFormerForImageClassification(SKFormerConfig(**{**sizes, **settings})))


def test_mixers_without_tensors_are_asked_for(tmp_path):
    tensors = metaformer_state_dict(small_former(token_mixers=["identity", "pooling", "identity", "attention"]))
    with pytest.raises(CheckpointError, match=r"stages 1, 2, 3 have no tensors.*--token_mixers"):
        convert_tensors(tensors, tmp_path, head_dim=8)
    with pytest.raises(CheckpointError, match=r"the tensors say: identity or pooling, .*, attention"):
        convert_tensors(tensors, tmp_path, head_dim=8, token_mixers=["pooling"])
    with pytest.raises(CheckpointError, match=r"--token_mixers is pooling random"):
        convert_tensors(tensors, tmp_path, head_dim=8, token_mixers=["pooling", "random"])


def test_randformer_needs_no_flag(tmp_path):
    config = {"use_mlp_head": False, "norm": "group"}
    source = small_former(token_mixers=["identity", "identity", "random", "random"], **config)
    conversion = convert_tensors(metaformer_state_dict(source), tmp_path)
    assert conversion.model.config.token_mixers == ["identity", "identity", "random", "random"]
    assert "RandFormer" in str(conversion)
    read = sum(tensor.numel() for tensor in metaformer_state_dict(source).values())
    assert f"{read:,} read, {read:,} used" in str(conversion)  # the frozen matrices too
    frozen = [name for name, _ in conversion.model.named_buffers()]
    assert frozen == [f"skformer.stages.{stage}.layers.0.mixer.matrix" for stage in (2, 3)]


def test_a_head_size_that_does_not_fit_is_asked_for(tmp_path):
    tensors = metaformer_state_dict(small_former(token_mixers=["separable_conv"] * 3 + ["attention"]))
    with pytest.raises(CheckpointError, match=r"Stage 4 attends with 8 channels, which heads of 32.*--head_dim"):
        convert_tensors(tensors, tmp_path)


def test_queries_of_both_kinds_are_refused(tmp_path):
    tensors = metaformer_state_dict(small_former(token_mixers=["static_key"] * 4))
    tensors["stages.0.0.token_mixer.v.weight"] = tensors.pop("stages.0.0.token_mixer.qv.weight")[8:]
    with pytest.raises(CheckpointError, match=r"Some static keys of this network have query projections"):
        convert_tensors(tensors, tmp_path)
