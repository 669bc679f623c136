"""Semantic segmenters: UperNet as transformers has it over the same backbone, sizes, losses and what is refused."""

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSemanticSegmentation, UperNetConfig, UperNetForSemanticSegmentation

from sk_transformers import SKFormerForSemanticSegmentation
from sk_transformers.registration import AUTO_CLASSES

from ..support.networks import assert_close, drawn
from ..support.small_models import small_config, small_model

NAMES = [
    "skaformer", "cskaformer", "window-former", "map-norm-former", "skvit", "cskvit-small-data", "dinov3", "deit",
    "skswin", "separate-swin",
]  # fmt: skip
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def segmenter(name, **overrides):
    """A segmenter in float64, whose every part matters to the logits."""
    config = small_config(name, **{"segmentation_hidden_size": 8, **overrides})
    return drawn(AUTO_CLASSES[type(config)][AutoModelForSemanticSegmentation](config))


def random_images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def masks(shape, seed=0):
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed))


def test_logits_and_loss_are_those_of_transformers_upernet():
    ours = segmenter("skaformer")
    config = UperNetConfig(
        backbone_config=small_config("skaformer", out_features=STAGES), hidden_size=8, num_labels=3,
        auxiliary_channels=4, auxiliary_in_channels=None, auxiliary_loss_weight=0.4,
    )  # fmt: skip
    theirs = UperNetForSemanticSegmentation(config).double().eval()
    theirs.decode_head.load_state_dict(ours.upernet.decode_head.state_dict())
    theirs.auxiliary_head.load_state_dict(ours.upernet.auxiliary_head.state_dict())
    backbone = {name: weight for name, weight in ours.state_dict().items() if not name.startswith("upernet.")}
    theirs.backbone.load_state_dict(backbone)
    images, labels = random_images(2, 3, 64, 96), masks((2, 64, 96))
    labels[0, :5] = 255
    with torch.no_grad():
        expected = theirs(images, labels=labels)
        outputs = ours(images, labels=labels)
    assert_close(outputs.logits, expected.logits)
    assert_close(outputs.loss, expected.loss)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 64), (33, 71), (5, 3)])
def test_every_pixel_has_logits_and_every_weight_a_gradient(name, size):
    model = segmenter(name).train()
    outputs = model(random_images(2, 3, *size), labels=masks((2, *size)))
    assert outputs.logits.shape == (2, 3, *size)
    outputs.loss.backward()
    assert [n for n, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize(
    ("name", "padded"), [("skaformer", (64, 64)), ("skvit", (56, 40)), ("skswin", (52, 40))]
)  # strides of 32, 8 and 4
def test_padding_is_what_a_larger_image_of_zeros_has(name, padded):
    model = segmenter(name)
    image = random_images(1, 3, 50, 40)
    larger = F.pad(image, (0, padded[1] - 40, 0, padded[0] - 50))
    with torch.no_grad():
        assert_close(model(image).logits, model(larger).logits[:, :, :50, :40])


def test_pixels_without_a_class_have_no_part_in_the_loss():
    model = segmenter("skaformer", segmentation_auxiliary_weight=0)
    images, labels = random_images(2, 3, 32, 32), masks((2, 32, 32))
    labels[:, 10:] = 255
    outputs = model(images, labels=labels)
    by_hand = F.cross_entropy(outputs.logits[:, :, :10].permute(0, 2, 3, 1).reshape(-1, 3), labels[:, :10].flatten())
    assert_close(outputs.loss, by_hand)
    assert model(images, labels=torch.full_like(labels, 255)).loss == 0
    assert model.upernet.auxiliary_head is None


@pytest.mark.parametrize("name", ["skaformer", "skvit", "skswin"])
def test_a_classifiers_weights_are_taken_and_its_own_come_back(name, tmp_path):
    classifier = drawn(small_model(name)).float()
    classifier.save_pretrained(tmp_path / "classifier")
    model, report = AutoModelForSemanticSegmentation.from_pretrained(
        tmp_path / "classifier", segmentation_hidden_size=8, output_loading_info=True
    )
    network = f"{classifier.base_model_prefix}."
    assert not [key for key in report["missing_keys"] if key.startswith(network)] and not report["unexpected_keys"]
    for key, weight in model.state_dict().items():
        if key.startswith(network):
            torch.testing.assert_close(weight, classifier.state_dict()[key])
    model = drawn(model)
    model.save_pretrained(tmp_path / "segmenter")
    again = type(model).from_pretrained(tmp_path / "segmenter").eval()
    images = random_images(1, 3, 32, 32)
    with torch.no_grad():
        assert_close(again(images).logits, model(images).logits)
    assert again.config.out_features == model.config.out_features


def test_the_callers_configuration_stays_as_it_was():
    config = small_config("skaformer")
    before = copy.deepcopy(config.to_dict())
    model = SKFormerForSemanticSegmentation(config)
    assert config.to_dict() == before and model.config.out_features == STAGES
    assert segmenter("skaformer", out_features=STAGES[1:]).config.out_features == STAGES[1:]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.zeros(2, 16, 32, dtype=torch.int64), r"shape \(2, 16, 32\) .* expected \(2, 32, 32\)"),
        (torch.zeros(2, 32, 32), "are torch.float32, expected"),
        (torch.full((2, 32, 32), 3), "hold class 3, but the model has 3 classes, 0 to 2, and 255"),
        (torch.full((2, 32, 32), -1), "hold class -1"),
    ],
)
def test_masks_that_do_not_fit(labels, said):
    with pytest.raises(ValueError, match=said):
        segmenter("skaformer")(random_images(2, 3, 32, 32), labels=labels)


def test_configurations_that_do_not_fit():
    with pytest.raises(ValueError, match="num_labels is 1, expected at least 2"):
        segmenter("skaformer", num_labels=1)
    with pytest.raises(ValueError, match="reshape_hidden_states is False"):
        segmenter("skvit", reshape_hidden_states=False)
    with pytest.raises(ValueError, match="names 5 layers, expected at most 4"):
        segmenter("skvit", num_hidden_layers=6, out_features=[f"stage{i}" for i in range(1, 6)])
    with pytest.raises(ValueError, match="segmentation_hidden_size is 0"):
        segmenter("skvit", segmentation_hidden_size=0)


@pytest.mark.parametrize("name", ["skaformer", "skvit"])
def test_a_batch_of_one_image_does_not_train_the_head(name):
    model = segmenter(name)
    model.eval()(random_images(1, 3, 16, 16))
    with pytest.raises(ValueError, match="in training mode got one image, expected at least 2"):
        model.train()(random_images(1, 3, 16, 16))
