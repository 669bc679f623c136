"""CvT beside what it becomes, in float64: the authors' networks and transformers', at any size."""

import pytest
import torch
from transformers import AutoModelForImageClassification, CvtConfig, CvtForImageClassification, CvtModel

from sk_transformers.conversion import CheckpointError, convert

from ..support.networks import assert_close, drawn, fill, logits

SMALL = {"embed_dim": [16, 32, 48], "depth": [1, 2, 3], "num_heads": [1, 2, 4], "stride_kv": [2, 2, 1]}
SIZES = [(64, 64), (70, 90), (32, 33), (3, 5)]


@pytest.mark.parametrize(
    ("name", "mixer", "scale"), [("cvt", "attention", "width"), ("cvt_cstu", "conv_static_key", "none")]
)
def test_logits_equal_the_authors(name, mixer, scale, tmp_path):
    case, expected = fill.load_case(name)
    tensors = fill.state_dict(case)
    torch.save(tensors, tmp_path / "source.pth")
    image_size = (32, 32) if mixer == "attention" else None  # which the keys tell
    conversion = convert(str(tmp_path / "source.pth"), tmp_path / "out", image_size=image_size, license="mit")
    assert f"{len(tensors)} read, {len(tensors)} used, none left over, none missing" in str(conversion)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    config = model.config
    assert config.token_mixers == [mixer] * 3
    assert (config.image_size, config.logit_scale, config.head_dims) == (32, scale, [64] * 3)
    # The two layers of the last stage have one row of keys there, for two values.
    second_row = 2 * 6 * (9 * 64 + 1 + 64) if mixer == "conv_static_key" else 0
    assert model.num_parameters() == case["parameters"] + second_row
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        assert_close(logits(model, fill.pixel_values(case)), next(iter(expected.values())))


@torch.no_grad()
def trained(network):
    """Return a drawn network whose batch norms have seen something, so that their statistics matter."""
    generator = torch.Generator().manual_seed(1)
    for module in drawn(network).modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network


def test_transformers_cvt(tmp_path):
    theirs = trained(CvtForImageClassification(CvtConfig(**SMALL, num_labels=3)))
    theirs.save_pretrained(tmp_path / "cvt")
    conversion = convert(str(tmp_path / "cvt"), tmp_path / "out", license="mit")
    assert conversion.difference is not None and conversion.difference < 1e-9
    for size in SIZES:
        images = torch.randn(2, 3, *size, dtype=torch.float64)
        assert_close(logits(conversion.model, images), logits(theirs, images))


def test_transformers_cvt_without_a_classifier(tmp_path):
    theirs = trained(CvtModel(CvtConfig(**SMALL)))
    theirs.save_pretrained(tmp_path / "cvt")
    conversion = convert(str(tmp_path / "cvt"), tmp_path / "out", license="mit")
    assert type(conversion.model).__name__ == "SKCvTModel" and conversion.difference < 1e-9
    images = torch.randn(2, 3, 40, 64, dtype=torch.float64)
    found, expected = conversion.model(images), theirs(images)
    assert_close(found.last_hidden_state, expected.last_hidden_state)
    assert_close(found.pooler_output, expected.cls_token_value[:, 0])


@pytest.mark.parametrize(
    "option", [{"cls_token": [False] * 3}, {"kernel_qkv": [3, 3, 5]}, {"mlp_ratio": [4.0, 4.0, 2.0]}]
)
def test_an_option_that_skcvt_does_not_have_is_named(option, tmp_path):
    (name,) = option
    CvtForImageClassification(CvtConfig(**SMALL, **option)).save_pretrained(tmp_path / "cvt")
    with pytest.raises(CheckpointError, match=f"The source has {name}=.*, and SKCvT can only do {name}="):
        convert(str(tmp_path / "cvt"), tmp_path / "out", license="mit")


def test_strides_of_other_convolutions_are_asked_for(tmp_path):
    case, _ = fill.load_case("cvt")
    tensors = {name: tensor[..., :5, :5] if name.startswith("stage0.patch_embed.proj.w") else tensor
               for name, tensor in fill.state_dict(case).items()}  # fmt: skip
    torch.save(tensors, tmp_path / "source.pth")
    with pytest.raises(CheckpointError, match=r"convolutions of \[5, 3, 3\] pixels, expected CvT's \[7, 3, 3\]"):
        convert(str(tmp_path / "source.pth"), tmp_path / "out", license="mit")
