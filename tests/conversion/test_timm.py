"""timm's networks beside what they become: by name, and as files under timm's and under MetaFormer's names."""

import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.layers.mlp import SwiGLUPacked
from timm.models import metaformer
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import AutoImageProcessor

from sk_transformers.conversion import CheckpointError, convert

from ..support.networks import assert_close, drawn, logits

BY_NAME = [
    "poolformerv2_s12", "convformer_s18", "caformer_s18", "vit_tiny_patch16_224", "deit_tiny_patch16_224",
    "deit3_small_patch16_224", "deit_tiny_distilled_patch16_224",
]  # fmt: skip


class RandomMixing(nn.Module):
    """RandFormer's mixer, which timm has not, at 64 pixels: the third stage's 16 positions, or the fourth's 4."""

    positions = 16

    def __init__(self, dim, proj_drop, device=None, dtype=None):
        super().__init__()
        self.random_matrix = nn.Parameter(torch.rand(self.positions, self.positions).softmax(-1), requires_grad=False)

    def forward(self, x):
        return (x.flatten(2) @ self.random_matrix.T).unflatten(2, x.shape[2:])


class LastRandomMixing(RandomMixing):
    positions = 4


FAMILIES = {  # token mixers of timm's, whether the head is an MLP
    "identityformer": (nn.Identity, False),
    "randformer": ([nn.Identity, nn.Identity, RandomMixing, LastRandomMixing], False),
    "poolformerv2": (metaformer.Pooling, False),
    "convformer": (metaformer.SepConv, True),
    "caformer": ([metaformer.SepConv, metaformer.SepConv, metaformer.Attention, metaformer.Attention], True),
}


def small_metaformer(family):
    mixers, use_mlp_head = FAMILIES[family]
    norms = metaformer.LayerNorm2dNoBias if use_mlp_head else metaformer.GroupNorm1NoBias
    if family == "caformer":
        norms = [metaformer.LayerNorm2dNoBias] * 2 + [metaformer.LayerNormNoBias] * 2
    return drawn(
        metaformer.MetaFormer(
            depths=[1, 2, 1, 1], dims=[8, 16, 32, 64], token_mixers=mixers, norm_layers=norms,
            use_mlp_head=use_mlp_head, num_classes=7,
        )
    )  # fmt: skip


def authors_state_dict(network):
    """The tensors under MetaFormer's own names, which timm changed."""
    theirs = {}
    for name, tensor in network.state_dict().items():
        name = name.replace("stem.conv", "downsample_layers.0.conv").replace(
            "stem.norm", "downsample_layers.0.post_norm"
        )
        name = re.sub(r"stages\.(\d)\.downsample\.norm", r"downsample_layers.\1.pre_norm", name)
        name = re.sub(r"stages\.(\d)\.downsample\.conv", r"downsample_layers.\1.conv", name)
        name = name.replace(".blocks.", ".").replace("head.norm.", "norm.").replace("head.fc.", "head.")
        theirs[name] = tensor.flatten(1) if tensor.shape[2:] == (1, 1) else tensor
    return theirs


@pytest.fixture
def strong_weights(monkeypatch):
    """timm's fresh weights are too small to show an error in every part."""
    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: drawn(create_model(*args, **kwargs)).float())


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_by_name(name, tmp_path, strong_weights):
    conversion = convert(f"timm:{name}", tmp_path / "out", random=True)
    network = timm.create_model(name).double()
    height, width = (224, 224) if conversion.model.config.model_type == "skvit" else (64, 96)
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    assert_close(logits(conversion.model.double(), images), logits(network, images))
    assert conversion.difference < 1e-9
    assert not conversion.assumed  # the network is there to be asked
    assert conversion.model.config.id2label[0] == "tench, Tinca tinca"


@pytest.mark.slow
@pytest.mark.parametrize("names", ["timm", "authors"])
@pytest.mark.parametrize("family", FAMILIES)
def test_metaformer_files(family, names, tmp_path):
    network = small_metaformer(family)
    if names == "authors" and FAMILIES[family][1]:
        network.head.fc.norm.eps = 1e-5  # theirs is PyTorch's, timm's is its own
    torch.save(network.state_dict() if names == "timm" else authors_state_dict(network), tmp_path / "source.pth")
    mixers = {"identityformer": ["identity"], "poolformerv2": ["pooling"]}.get(family)
    conversion = convert(str(tmp_path / "source.pth"), tmp_path / "out", token_mixers=mixers, license="mit")
    assert conversion.difference is None if family == "randformer" else conversion.difference < 1e-9
    for height, width in [(64, 64)] if family == "randformer" else [(64, 64), (384, 384), (96, 161)]:
        images = torch.randn(1, 3, height, width, dtype=torch.float64)
        assert_close(logits(conversion.model, images), logits(network, images))


VITS = {
    "vit": {},
    "non-square": {"img_size": (32, 64), "patch_size": (8, 16)},
    "mean-pooling": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "layer-scale": {"init_values": 1e-5},
    "no-class-position": {"no_embed_class": True},
    "no-bias": {"qkv_bias": False},
    "registers": {"reg_tokens": 3, "no_embed_class": True},
    "registers-mean": {"reg_tokens": 3, "no_embed_class": True, "class_token": False, "global_pool": "avg"},
    "class-token-mean": {"global_pool": "avg"},
    "dinov2": {"num_classes": 0, "init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True},
    "dinov2-swiglu": {"num_classes": 0, "mlp_ratio": 4, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU},
    "siglip": {"num_classes": 0, "class_token": False, "global_pool": "map", "act_layer": "gelu_tanh"},
    "clip": {"num_classes": 0, "pre_norm": True, "act_layer": "quick_gelu"},
}


@pytest.mark.parametrize("variant", [*VITS, "distilled"])
def test_vit_files(variant, tmp_path):
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 5}
    network_class = VisionTransformerDistilled if variant == "distilled" else VisionTransformer
    network = drawn(network_class(**{**settings, **VITS.get(variant, {})}))
    torch.save({"model": network.state_dict()}, tmp_path / "source.pth")
    image_size = VITS.get(variant, {}).get("img_size", (32, 32))
    override = image_size if variant == "non-square" else None
    told = {"hidden_act": "quick_gelu"} if variant == "clip" else {}
    conversion = convert(
        str(tmp_path / "source.pth"), tmp_path / "out", head_dim=8, image_size=override, license="mit", **told
    )
    assert conversion.difference < 1e-9
    images = torch.randn(2, 3, *image_size, dtype=torch.float64)
    if network.num_classes:
        assert_close(logits(conversion.model, images), logits(network, images))
        return
    with torch.no_grad():
        found = conversion.model(images)
        assert_close(found.last_hidden_state, network.forward_features(images))
        assert_close(found.pooler_output, network(images))


def test_a_clip_in_a_file_does_not_tell_its_activation(tmp_path):
    network = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=4, pre_norm=True)
    torch.save(network.state_dict(), tmp_path / "source.pth")
    with pytest.raises(CheckpointError, match="some have the activation gelu and some quick_gelu: pass --hidden_act"):
        convert(str(tmp_path / "source.pth"), tmp_path / "out", head_dim=8, license="mit")


def test_the_projection_of_a_clip_is_left_out_and_named(tmp_path, monkeypatch):
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "pre_norm": True}
    network = drawn(VisionTransformer(**settings, num_classes=24, act_layer="quick_gelu"))
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: network)
    conversion = convert("timm:vit_base_patch16_clip_224.openai", tmp_path / "out", random=True)
    assert "head.bias, head.weight, the projection to the space that images share with text" in str(conversion)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert_close(
            conversion.model(images).pooler_output, network.forward_head(network.forward_features(images), True)
        )


def test_an_activation_that_is_not_known(tmp_path, monkeypatch):
    network = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=4, act_layer=nn.ReLU)
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: network)
    with pytest.raises(CheckpointError, match="has the activation ReLU, expected one of GELU, GELUTanh"):
        convert("timm:vit_base_patch16_224", tmp_path / "out", random=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, message",
    [
        ("timm:cafomer_s18", "did you mean caformer_s18"),
        ("timm:beit_base_patch16_224", "a Beit of timm's, which has no counterpart here"),
        ("timm:poolformer_s12", r"unknown: skformer.stages.0.layers.0.layer_scale1.scale.* and \d+ more; missing: "),
        ("timm:vit_tiny_patch16_224", "timm could not make .*pass --random"),  # no network, no weights
    ],
)
def test_what_cannot_be_converted(name, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        convert(name, tmp_path / "out", random=name != "timm:vit_tiny_patch16_224")
    assert not list(tmp_path.iterdir())


def test_what_tensors_do_not_show_is_found_by_the_logits(tmp_path, monkeypatch):
    network = drawn(VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2))
    network.norm.eps = 0.1  # of the others it is 1e-6
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: network)
    with pytest.raises(CheckpointError, match="does something that its tensors do not show"):
        convert("timm:vit_base_patch16_224", tmp_path / "out", random=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "caformer_s18.sail_in1k_384"])
def test_the_image_processor_does_what_timm_evaluates_with(name, tmp_path):
    convert(f"timm:{name}", tmp_path / "out", random=True)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    smooth = np.linspace(0, 255, 500 * 700 * 3).reshape(500, 700, 3) % 256
    image = Image.fromarray(smooth.astype(np.uint8)).resize((90, 70)).resize((700, 500))
    found = processor(image, return_tensors="pt").pixel_values[0]
    data_config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    expected = timm.data.create_transform(**data_config, is_training=False)(image)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 0.05  # a rounding of 8-bit pixels, over a standard deviation
