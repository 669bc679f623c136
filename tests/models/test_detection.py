"""Detectors: Mask R-CNN as torchvision has it over the same maps, sizes, labels, and what is refused."""

import copy
import sys

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.ops import box_convert, box_iou
from transformers import AutoModelForObjectDetection, DetrImageProcessor

from sk_transformers import SKFormerForObjectDetection
from sk_transformers.registration import AUTO_CLASSES

from ..support.networks import drawn
from ..support.small_models import small_config, small_model

NAMES = ["skaformer", "window-former", "separate-swin"]
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def detector(name="skaformer", **overrides):
    torch.manual_seed(0)
    config = small_config(name, **{"detection_hidden_size": 8, **overrides})
    return AUTO_CLASSES[type(config)][AutoModelForObjectDetection](config).eval()


def confident(model):
    """The same with heads that find something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in (model.mask_rcnn.roi_heads.box_predictor, model.mask_rcnn.rpn.head):
            for parameter in weights.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def random_images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def labels_of(size, boxes=((8, 8, 40, 30), (20, 10, 30, 50)), classes=(0, 2)):
    """Labels of an image of boxes `(left, top, right, bottom)`, whose masks are all of them."""
    height, width = size
    masks = torch.zeros(len(boxes), height, width)
    for mask, (left, top, right, bottom) in zip(masks, boxes):
        mask[top:bottom, left:right] = 1
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    fractions = box_convert(corners, "xyxy", "cxcywh") / torch.tensor([width, height, width, height])
    return {"class_labels": torch.tensor(classes, dtype=torch.int64), "boxes": fractions, "masks": masks}


class Pyramid(nn.Module):
    """The part of a detector that torchvision's `MaskRCNN` calls its backbone."""

    out_channels = 256

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        maps = self.model.skformer(pixel_values, output_hidden_states=True).hidden_states[1:]
        norms = self.model.feature_norms.values()
        maps = [norm(one.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for one, norm in zip(maps, norms)]
        return self.model.mask_rcnn.fpn(dict(zip("0123", maps)))


@pytest.fixture(scope="module")
def both():
    """A detector of ours of full width and torchvision's, which have the same weights."""
    ours = confident(detector(detection_hidden_size=256))
    theirs = MaskRCNN(Pyramid(ours), 4, min_size=64, max_size=64, image_mean=[0.0] * 3, image_std=[1.0] * 3).eval()
    theirs.rpn.load_state_dict(ours.mask_rcnn.rpn.state_dict())
    theirs.roi_heads.load_state_dict(ours.mask_rcnn.roi_heads.state_dict())
    return ours, theirs


def test_objects_are_those_of_torchvision(both):
    ours, theirs = both
    images = random_images(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(list(images))
        outputs = ours(images)
    found = ours.post_process_instance_segmentation(outputs, 0, [(64, 64)] * 2)
    assert all(len(one["labels"]) > 3 for one in expected)
    for one, other in zip(found, expected):
        assert torch.equal(one["labels"], other["labels"] - 1)
        torch.testing.assert_close(one["scores"], other["scores"])
        torch.testing.assert_close(one["boxes"], other["boxes"], atol=1e-3, rtol=1e-4)
        assert (one["masks"] != (other["masks"][:, 0] > 0.5)).float().mean() < 1e-3
    by_processor = DetrImageProcessor().post_process_object_detection(outputs, 0.0, [(64, 64)] * 2)
    for one, other in zip(by_processor, expected):
        torch.testing.assert_close(one["scores"], other["scores"])
        assert torch.equal(one["labels"], other["labels"] - 1)
        torch.testing.assert_close(one["boxes"], other["boxes"], atol=1e-3, rtol=1e-4)


def test_losses_are_those_of_torchvision(both):
    ours, theirs = (copy.deepcopy(model).train() for model in both)
    images, label = random_images(2, 3, 64, 64), labels_of((64, 64))
    theirs.transform.torch_choice = min  # of the one size that there is, without a random number
    targets = {
        "boxes": torch.tensor([[8.0, 8, 40, 30], [20, 10, 30, 50]]),
        "labels": label["class_labels"] + 1,
        "masks": label["masks"].to(torch.uint8),
    }
    torch.manual_seed(0)
    expected = theirs(list(images), [targets] * 2)
    torch.manual_seed(0)
    outputs = ours(images, labels=[label] * 2)
    assert outputs.loss_dict.keys() == expected.keys() and outputs.logits is None
    for name, loss in expected.items():
        torch.testing.assert_close(outputs.loss_dict[name], loss)
    torch.testing.assert_close(outputs.loss, sum(expected.values()))
    torch.manual_seed(0)
    evaluated = ours.eval()(images, labels=[label] * 2)
    torch.testing.assert_close(evaluated.loss, outputs.loss)
    assert evaluated.logits.shape == (2, 100, 4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("has_objects", [True, False])
def test_every_weight_has_a_gradient(name, has_objects):
    model = detector(name).train()
    labels = labels_of((50, 71)) if has_objects else labels_of((50, 71), (), ())
    outputs = model(random_images(2, 3, 50, 71), labels=[labels, labels_of((50, 71), (), ())])
    assert set(outputs.loss_dict) == {
        "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask",
    }  # fmt: skip
    outputs.loss.backward()
    assert [n for n, weight in model.named_parameters() if weight.grad is None] == []


def test_padding_changes_neither_boxes_nor_masks():
    model = confident(detector())
    image = random_images(1, 3, 50, 40)
    larger = nn.functional.pad(image, (0, 24, 0, 14))
    pixel_mask = torch.zeros(1, 64, 64, dtype=torch.int64)
    pixel_mask[:, :50, :40] = 1
    with torch.no_grad():
        alone, padded = model(image), model(larger, pixel_mask)
    assert alone.logits[0, 0, -1] < 0  # there is an object
    for name in ("logits", "pred_boxes", "pred_masks"):
        torch.testing.assert_close(alone[name], padded[name])
    (found,) = model.post_process_instance_segmentation(alone, 0, [(100, 80)])  # twice as large as what was seen
    assert (found["boxes"] >= -1e-3).all() and (found["boxes"] <= torch.tensor([80, 100, 80, 100]) + 1e-3).all()
    assert found["boxes"][:, 3].max() > 50 and found["masks"].shape[1:] == (100, 80)


def test_without_masks_it_is_faster_r_cnn():
    model = detector(detection_masks=False).train()
    labels = labels_of((64, 64))
    del labels["masks"]
    assert "loss_mask" not in model(random_images(1, 3, 64, 64), labels=[labels]).loss_dict
    outputs = model.eval()(random_images(1, 3, 64, 64))
    assert outputs.pred_masks is None
    assert "masks" not in model.post_process_instance_segmentation(outputs, 0, [(64, 64)])[0]


@pytest.mark.slow
def test_it_learns_two_images():
    model = detector(num_labels=2, detection_hidden_size=32).train()
    images, labels = torch.zeros(2, 3, 64, 64), []
    for image, (left, top, side), kind in zip(images, ((6, 10, 30), (24, 20, 36)), (0, 1)):
        image[kind, top : top + side, left : left + side] = 1
        labels.append(labels_of((64, 64), [(left, top, left + side, top + side)], [kind]))
    model.mask_rcnn.roi_heads.fg_bg_sampler.batch_size_per_image = 32  # enough, and quicker
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    torch.manual_seed(0)
    losses = []
    for _ in range(40):
        loss = model(images, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
    model.eval()
    found = model.post_process_instance_segmentation(model(images), 0.5, [(64, 64)] * 2)
    for one, label in zip(found, labels):
        right = box_convert(label["boxes"] * 64, "cxcywh", "xyxy")
        assert one["labels"].tolist()[:1] == label["class_labels"].tolist()
        assert box_iou(one["boxes"][:1], right) > 0.7
        mask, right = one["masks"][0], label["masks"][0].bool()
        assert (mask & right).sum() / (mask | right).sum() > 0.7


@pytest.mark.parametrize("name", ["skaformer", "skswin"])
def test_a_classifiers_weights_are_taken_and_its_own_come_back(name, tmp_path):
    classifier = drawn(small_model(name)).float()
    classifier.save_pretrained(tmp_path / "classifier")
    model, report = AutoModelForObjectDetection.from_pretrained(
        tmp_path / "classifier", detection_hidden_size=16, output_loading_info=True
    )
    network = f"{classifier.base_model_prefix}."
    assert not [key for key in report["missing_keys"] if key.startswith(network)] and not report["unexpected_keys"]
    for key, weight in model.state_dict().items():
        if key.startswith(network):
            torch.testing.assert_close(weight, classifier.state_dict()[key])
    fresh = detector(name, detection_hidden_size=16)
    for part in ("fpn.layer_blocks.0.0", "rpn.head.conv.0.0", "roi_heads.box_head.fc6", "roi_heads.mask_head.1.0"):
        stds = [one.mask_rcnn.get_submodule(part).weight.std().item() for one in (model, fresh)]
        assert stds[0] == pytest.approx(stds[1], rel=0.15)
    assert model.mask_rcnn.rpn.head.conv[0][0].weight.std().item() == pytest.approx(0.01, rel=0.1)
    confident(model.eval()).save_pretrained(tmp_path / "detector")
    again = type(model).from_pretrained(tmp_path / "detector").eval()
    images = random_images(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(images).logits, model(images).logits)
    assert again.config.out_features == model.config.out_features


def test_weights_in_16_bits_leave_the_heads_in_32(tmp_path):
    model = confident(detector())
    model.save_pretrained(tmp_path)
    half = SKFormerForObjectDetection.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert half.dtype == torch.bfloat16 and half.mask_rcnn.rpn.head.cls_logits.weight.dtype == torch.float32
    images = random_images(1, 3, 64, 64)
    with torch.no_grad():
        assert half(images.bfloat16()).pred_boxes.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            assert model(images).pred_boxes.dtype == torch.float32
    with pytest.raises(ValueError, match="weights of Mask R-CNN are torch.bfloat16, expected torch.float32"):
        half.to(torch.bfloat16)(images.bfloat16())


def test_the_callers_configuration_stays_as_it_was():
    config = small_config("skaformer")
    before = copy.deepcopy(config.to_dict())
    model = SKFormerForObjectDetection(config)
    assert config.to_dict() == before and model.config.out_features == STAGES
    assert detector(out_features=STAGES[1:]).mask_rcnn.rpn.anchor_generator.sizes[0] == (64.0,)  # 8 strides of 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_labels": torch.tensor([0, 3])}, "hold class 3, but the model has 3 classes, 0 to 2"),
        ({"boxes": torch.rand(3, 4)}, r"boxes have shape \(3, 4\), expected \(2, 4\)"),
        ({"boxes": torch.tensor([[0.5, 0.5, 0.1, 0], [0.5, 0.5, 0.1, 0.1]])}, "hold a box of no area"),
        ({"masks": torch.ones(2, 32, 64)}, r"masks have shape \(2, 32, 64\), expected \(2, 64, 64\)"),
        ({"masks": None}, "and no masks: give the masks of objects, or set detection_masks=False"),
        ({"class_labels": None}, "and no class_labels"),
    ],
)
def test_labels_that_do_not_fit(change, said):
    label = {name: value for name, value in {**labels_of((64, 64)), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=said):
        detector()(random_images(1, 3, 64, 64), labels=[label])


def test_what_else_does_not_fit(monkeypatch):
    images = random_images(1, 3, 64, 64)
    with pytest.raises(ValueError, match="labels are of 2 images, expected 1"):
        detector()(images, labels=[labels_of((64, 64))] * 2)
    with pytest.raises(ValueError, match=r"pixel_mask has shape \(1, 32, 32\), expected \(1, 64, 64\)"):
        detector()(images, torch.ones(1, 32, 32))
    with pytest.raises(ValueError, match="target_sizes are missing"):
        detector().post_process_instance_segmentation(detector()(images))
    with pytest.raises(ValueError, match="num_labels is 0, expected at least 1"):
        detector(num_labels=0)
    with pytest.raises(ValueError, match="detection_max_objects is 0"):
        detector(detection_max_objects=0)
    with pytest.raises(ValueError, match="expected stages in a row"):
        detector(out_features=["stage1", "stage3"])
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now fails
    with pytest.raises(ImportError, match="Mask R-CNN needs torchvision, which is not installed: pip install"):
        detector()
