"""One rule for the image processor of fresh and converted networks, and the same one at other sizes."""

import pytest
import timm
import torch
from PIL import Image
from timm.data import resolve_data_config
from timm.data.transforms_factory import create_transform
from transformers import AutoImageProcessor, BitImageProcessor, ConvNextImageProcessor, ViTImageProcessor

from sk_transformers.image_processing import IMAGENET_RECIPE, image_processor_for, output_size, with_output_size
from sk_transformers.pretrained import load_model

LABELS = dict(enumerate("abc"))


def test_the_recipe_is_metaformers_and_what_timm_takes_where_a_model_says_nothing():
    default = resolve_data_config({"input_size": (3, 224, 224)})
    assert all(default[key] == IMAGENET_RECIPE[key] for key in ("mean", "std", "interpolation", "crop_mode"))
    caformer = timm.get_pretrained_cfg("caformer_s18.sail_in1k").to_dict()
    assert {key: caformer[key] for key in IMAGENET_RECIPE if key != "crop_mode"} == {
        key: value for key, value in IMAGENET_RECIPE.items() if key != "crop_mode"
    }


@pytest.mark.parametrize("name", ["skvit-nano-patch4-32", "caformer-nano"])
def test_fresh_networks_get_it(name):
    model, image_processor = load_model(name, LABELS)
    assert isinstance(image_processor, BitImageProcessor)
    assert image_processor.to_dict() == image_processor_for(model.config.image_size).to_dict()
    assert tuple(image_processor.image_mean) == IMAGENET_RECIPE["mean"]


@pytest.mark.parametrize("recipe", [{}, {"crop_pct": 0.875}, {"mean": (0.5,) * 3, "crop_mode": "squash"}])
def test_it_does_what_timm_evaluates_with(recipe, tmp_path):
    image = Image.linear_gradient("L").resize((90, 70)).convert("RGB")
    image_processor_for(32, recipe).save_pretrained(tmp_path)
    found = AutoImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt").pixel_values[0]
    expected = create_transform((3, 32, 32), **{**IMAGENET_RECIPE, **recipe})(image)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)  # 8-bit pixels are rounded


@pytest.mark.parametrize(
    "image_processor, size",
    [
        (image_processor_for(32), (32, 32)),
        (image_processor_for((32, 48)), (32, 48)),
        (image_processor_for(32, {"crop_pct": 0.8}), (32, 32)),
        (ViTImageProcessor(size={"height": 8, "width": 6}), (8, 6)),
        (ConvNextImageProcessor(size={"shortest_edge": 24}, crop_pct=1.0), (24, 24)),
    ],
)
def test_output_size_is_that_of_the_pixel_values(image_processor, size):
    image = Image.new("RGB", (90, 70), "red")
    assert output_size(image_processor) == size == image_processor(image, return_tensors="pt").pixel_values.shape[2:]
    other = with_output_size(image_processor, [64, 64])
    assert output_size(other) == (64, 64) == other(image, return_tensors="pt").pixel_values.shape[2:]
    assert output_size(image_processor) == size  # not changed


def test_another_size_keeps_the_fraction_of_the_crop():
    other = with_output_size(image_processor_for(32, {"crop_pct": 0.8, "mean": (0.1, 0.2, 0.3)}), 64)
    assert other.to_dict() == image_processor_for(64, {"crop_pct": 0.8, "mean": (0.1, 0.2, 0.3)}).to_dict()
    assert output_size(with_output_size(image_processor_for(32, {"crop_pct": 0.8}), [32, 48])) == (32, 48)
