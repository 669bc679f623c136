"""Pictures of predictions: colors by hand, a segmenter that is right, and what cannot be read."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sk_transformers.data.masks import IGNORED
from sk_transformers.data.options import DataOptions
from sk_transformers.data.problems import load_images
from sk_transformers.evaluation.mask_files import palette
from sk_transformers.evaluation.overlays import draw_classes, draw_objects, to_pixels, with_legend
from sk_transformers.evaluation.pictures import GAP, PICTURE, SIDE, draw_predictions
from sk_transformers.image_processing import image_processor_for, segmentation_processor, without_resizing

from ..support.mask_files import CLASSES, write_pairs

RED, GREEN, YELLOW = (palette()[3 * number : 3 * number + 3] for number in (1, 2, 3))


def test_classes_by_hand():
    image = torch.full((3, 1, 3), 101, dtype=torch.uint8)
    image[1] = 200
    drawn = draw_classes(image, torch.tensor([[0, 1, IGNORED]]))
    # Half of (101, 200, 101) and of black, and of (128, 0, 0); halves go to the even number.
    assert drawn.permute(1, 2, 0).tolist() == [[[50, 100, 50], [114, 100, 50], [101, 200, 101]]]


def test_objects_by_hand():
    """A box has its class's color, a mask half of it, and the best object is on top."""
    image = torch.full((3, 100, 120), 100, dtype=torch.uint8)
    masks = torch.zeros(2, 100, 120, dtype=torch.bool)
    masks[0, 60:70, 30:50] = masks[1, 60:70, 20:40] = True  # the half of each is in both
    objects = {
        "boxes": torch.tensor([[10.0, 30, 110, 90], [10, 50, 110, 90]]),
        "labels": torch.tensor([1, 0]),
        "scores": torch.tensor([0.9, 0.6]),
        "masks": masks,
    }
    drawn = draw_objects(image, objects, ["car", "person"]).permute(1, 2, 0)
    assert drawn[40, 110].tolist() == drawn[90, 30].tolist() == GREEN and drawn[50, 100].tolist() == RED
    assert drawn[65, 25].tolist() == [114, 50, 50] and drawn[95, 100].tolist() == [100] * 3
    assert drawn[65, 35].tolist() == drawn[65, 45].tolist() == [50, 114, 50]
    caption = drawn[16:30, 10:80].flatten(0, 1)
    assert (caption == torch.tensor(GREEN)).all(1).sum() > 300 and (caption == 255).all(1).any()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert torch.equal(draw_objects(image, nothing, ["car", "person"]), image)


def test_a_legend_has_the_classes_that_there_are():
    picture, names = Image.new("RGB", (90, 20), "white"), [f"class {number}" for number in range(4)]
    mask = torch.tensor([[1, 1, 3, IGNORED]])
    whole = with_legend(picture, [mask, mask], names, 12)
    strip = to_pixels(whole)[:, 20:].permute(1, 2, 0).reshape(-1, 3)
    painted = [(strip == torch.tensor(color)).all(1).any().item() for color in (RED, GREEN, YELLOW)]
    assert whole.width == 90 and painted == [True, False, True]
    assert whole.height > with_legend(picture, [mask[:, :2]], names, 12).height  # in two lines
    assert with_legend(picture, [mask[:, 3:]], names, 12) is picture


class Brightness(nn.Module):
    """A segmenter that takes what is bright for class 0."""

    device = torch.device("cpu")
    config = SimpleNamespace(id2label={0: "square", 1: "ground"})

    def forward(self, pixel_values):
        brightness = pixel_values.mean(1)
        return SimpleNamespace(logits=torch.stack([brightness, -brightness], 1))


@pytest.mark.parametrize("broken", [False, True])
def test_what_is_right_beside_what_is_predicted(broken, tmp_path):
    """In the colors of the model's classes, of the first images that can be read."""
    data = write_pairs(tmp_path / "data", counts=(("train", 2), ("val", 3)))
    if broken:
        (data / "val" / "images" / "0.png").write_bytes(b"no image")
    bad = "skip" if broken else "error"
    options = DataOptions(str(data), problem_type="segmentation", classes=CLASSES, on_bad_image=bad)
    images = load_images(options)
    processor = without_resizing(segmentation_processor(image_processor_for(32), 32))
    draw_predictions(Brightness(), processor, images.validation, images.labels, options, tmp_path / "out")
    picture = np.asarray(Image.open(tmp_path / "out" / PICTURE))
    first = 1 if broken else 0
    photo = np.asarray(Image.open(data / "val" / "images" / f"{first}.png"))
    mask = np.asarray(Image.open(data / "val" / "masks" / f"{first}.png"))
    scale = SIDE / max(mask.shape)
    columns = (GAP, (picture.shape[1] - 3 * GAP) // 2 + 2 * GAP)
    top = 16 + 2 * GAP
    for number, color in ((1, palette()[:3]), (0, RED)):
        row, column = (int(side) for side in np.argwhere(mask == number).mean(0))
        if mask[row, column] != number:  # the middle of the ground may be in the square
            row, column = 6, 2
        expected = (photo[row, column] + np.array(color)) / 2
        for left in columns:
            drawn = picture[top + int((row + 0.5) * scale), left + int((column + 0.5) * scale)]
            assert np.abs(drawn - expected).max() <= 0.5
    assert picture.shape[1] <= 2 * SIDE + 3 * GAP
    no_class, left = picture[top + int(1.5 * scale), columns[0] + int(5.5 * scale)], photo[1, 5]
    assert np.array_equal(no_class, left)


def test_nothing_is_drawn_of_a_classifier(tmp_path):
    processor, options = image_processor_for(32), DataOptions("digits")
    draw_predictions(nn.Identity(), processor, load_images(options).validation, [], options, tmp_path / "out")
    assert not (tmp_path / "out").exists()
