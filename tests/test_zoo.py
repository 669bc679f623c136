"""The named networks."""

import pytest
import torch

from sk_transformers import create_config, create_model, list_models
from sk_transformers.complexity import count_macs
from sk_transformers.zoo import VARIANTS

PARAMETERS = {
    "cskaformer-s18": 28_983_186,
    "cskaformer-b36": 119_492_662,
    "caformer-s18": 26_341_656,
    "skvit-small-patch4-32": 9_478_896,
    "cskvit-small-patch4-32": 10_049_568,
    "vit-small-patch4-32": 9_622_512,
    "vit-base-patch16-224": 86_567_656,  # timm's vit_base_patch16_224
    "vit-tiny-patch16-224": 5_717_416,  # timm's vit_tiny_patch16_224
}
MILLIONS = {"skaformer-s18": 26.20, "skaformer-b36": 97.16, "caformer-b36": 98.75}


def count(name):
    with torch.device("meta"):
        return create_model(name).num_parameters()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    assert count(name) == PARAMETERS[name]


@pytest.mark.parametrize("name", MILLIONS)
def test_millions_of_parameters(name):
    assert count(name) / 1e6 == pytest.approx(MILLIONS[name], abs=0.005)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_can_be_built(name):
    assert count(name) > 0


@pytest.mark.parametrize(
    "names",
    [["skvit-micro-patch4-32", "cskvit-micro-patch4-32", "vit-micro-patch4-32"],
     ["skaformer-micro-32", "caformer-micro-32", "convformer-micro-32"]],
)  # fmt: skip
def test_networks_for_small_images_are_alike(names):
    """One size each, so that what differs between trained ones is the mixer."""
    assert max(count(name) for name in names) < 1.5e6
    macs = [count_macs(create_config(name)) for name in names]
    assert max(macs) < 1.1 * min(macs)


def test_names():
    names = list_models()
    assert names == sorted(names)
    for family in ("skvit", "cskvit", "vit"):
        for size in ("tiny", "small", "base", "large"):
            assert f"{family}-{size}-patch16-224" in names
        assert f"{family}-small-patch4-32" in names
    for family in ("skaformer", "cskaformer", "caformer", "convformer"):
        for size in ("s18", "s36", "m36", "b36"):
            assert f"{family}-{size}" in names
    assert list_models("cskaformer-s") == ["cskaformer-s18", "cskaformer-s36"]
    assert list_models("ska*-b36") == ["skaformer-b36"]
    assert list_models("resnet") == []


def test_overrides():
    config = create_config("skvit-tiny-patch16-224", image_size=96, id2label={0: "cat", 1: "dog"})
    assert (config.image_size, config.num_labels, config.hidden_size) == (96, 2, 192)
    with pytest.raises(ValueError, match="SKViTConfig has no field 'image_sizes'. Did you mean 'image_size'"):
        create_config("skvit-tiny-patch16-224", image_sizes=96)


def test_unknown_names_get_suggestions():
    with pytest.raises(ValueError, match="Unknown model 'skvit-tiny'. Did you mean .*'skvit-tiny-patch16-224'"):
        create_model("skvit-tiny")
    with pytest.raises(ValueError, match=r"Unknown model 'qqq'. list_models\(\) names them all"):
        create_config("qqq")
