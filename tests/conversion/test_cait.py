"""CaiT beside what it becomes, in float64: the authors' networks and timm's."""

import pytest
import torch
from timm.models.cait import Cait
from transformers import AutoModelForImageClassification

from sk_transformers import SKCaiTConfig
from sk_transformers.conversion import convert

from ..support.networks import assert_close, drawn, fill, logits


@pytest.mark.parametrize(("name", "mixer", "image_size"), [("cait", "attention", 32), ("cait_stu", "static_key", 64)])
def test_logits_equal_the_authors(name, mixer, image_size, tmp_path):
    case, expected = fill.load_case(name)
    tensors = fill.state_dict(case)
    torch.save(tensors, tmp_path / "source.pth")
    conversion = convert(str(tmp_path / "source.pth"), tmp_path / "out", license="mit")
    assert f"{len(tensors)} read, {len(tensors)} used, none left over, none missing" in str(conversion)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    config = model.config
    assert config.token_mixers == [mixer] * 3
    assert (config.image_size, config.patch_size, config.num_attention_heads) == (image_size, 4, 4)
    assert (config.num_class_layers, config.talking_heads, config.class_talking_heads) == (2, "linear", "linear")
    assert model.num_parameters() == case["parameters"]
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        assert_close(logits(model, fill.pixel_values(case)), next(iter(expected.values())))


def test_a_file_of_timms_cait(tmp_path):
    network = drawn(Cait(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=4, num_classes=3, init_values=0.1))
    torch.save(network.state_dict(), tmp_path / "source.pth")
    conversion = convert(str(tmp_path / "source.pth"), tmp_path / "out", license="mit")
    assert conversion.difference is not None and conversion.difference < 1e-9
    assert not any("head_dim" in assumption for assumption in conversion.assumed)  # the maps over the heads tell it
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert_close(logits(conversion.model, images), logits(network, images))


@pytest.mark.slow
def test_timm_by_name(tmp_path):
    conversion = convert("timm:cait_xxs24_224", tmp_path / "out", random=True)
    assert conversion.difference is not None and conversion.difference < 1e-9
    assert not conversion.assumed
    found, expected = conversion.model.config, SKCaiTConfig(token_mixer="attention")
    kept = set(vars(SKCaiTConfig())) - {"id2label", "label2id", "num_labels", "layer_scale_init_value", "architectures"}
    for field in sorted(kept):
        if not field.startswith("_") and field not in ("dtype", "auto_map", "transformers_version"):
            assert getattr(found, field) == getattr(expected, field), field
