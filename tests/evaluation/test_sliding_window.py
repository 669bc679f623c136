"""Segmentation in windows: a plain loop in float64, windows as large as the image, both commands, and processes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sk_transformers import SKFormerForSemanticSegmentation
from sk_transformers.cli.predict import main
from sk_transformers.data.options import DataOptions
from sk_transformers.evaluation.options import EvaluationOptions, PredictionOptions
from sk_transformers.evaluation.run import evaluate_model
from sk_transformers.evaluation.sliding_window import SlidingWindowSegmenter, sliding_window, sliding_window_logits
from sk_transformers.hub import export
from sk_transformers.image_processing import image_processor_for, segmentation_processor
from sk_transformers.pretrained import load_segmenter

from ..support.mask_files import CLASSES, write_pairs
from ..support.networks import drawn
from ..support.small_models import small_config
from ..support.training import launch


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    config = small_config("skaformer", segmentation_hidden_size=8, num_labels=2)
    config.id2label, config.label2id = dict(enumerate(CLASSES)), {name: index for index, name in enumerate(CLASSES)}
    processor = segmentation_processor(image_processor_for(32), 32)
    model = drawn(SKFormerForSemanticSegmentation(config)).float()
    return str(export(model, processor, tmp_path_factory.mktemp("repo") / "repo"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), counts=(("train", 2), ("val", 5)))


def loop_over_pixels(segment, image, size, stride):
    """What logits of windows come to, pixel by pixel, as mmsegmentation counts the windows of its slide mode."""
    height, width = image.shape[1:]
    answers = []
    for row in range(max(height - size[0] + stride[0] - 1, 0) // stride[0] + 1):
        for column in range(max(width - size[1] + stride[1] - 1, 0) // stride[1] + 1):
            bottom, right = min(row * stride[0] + size[0], height), min(column * stride[1] + size[1], width)
            top, left = max(bottom - size[0], 0), max(right - size[1], 0)
            answers.append((top, left, segment(image[None, :, top:bottom, left:right])[0]))
    logits = torch.empty(answers[0][2].shape[0], height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            covering = [
                one[:, y - top, x - left]
                for top, left, one in answers
                if 0 <= y - top < one.shape[1] and 0 <= x - left < one.shape[2]
            ]
            logits[:, y, x] = torch.stack(covering).mean(0)
    return logits


class Edgy(nn.Module):
    """Logits that depend on where in its window a pixel lies."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1).double()

    def forward(self, crops):
        rows = torch.arange(crops.shape[2], dtype=torch.float64)[:, None]
        return self.conv(crops) * (1 + rows) + crops.mean(dim=(1, 2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("image_size", "size", "stride"),
    [
        ((20, 31), (8, 12), None),  # the last windows are shifted
        ((24, 24), (8, 8), (8, 8)),  # nothing overlaps
        ((9, 30), (16, 10), (7, 3)),  # lower than a window
        ((7, 5), (8, 12), None),  # smaller than a window
    ],
)
@torch.no_grad()
def test_a_plain_loop_in_float64(image_size, size, stride):
    image = torch.randn(3, *image_size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    segment = Edgy()
    window = sliding_window(list(size), None if stride is None else list(stride), batch_size=4)
    expected = loop_over_pixels(segment, image, size, stride or tuple(side * 2 // 3 for side in size))
    torch.testing.assert_close(sliding_window_logits(segment, image, window), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_window_as_large_as_the_image_is_the_whole_image(repo):
    """Exactly; and what fills up the smaller image of a batch is not seen."""
    model, _ = load_segmenter(repo)
    torch.manual_seed(0)
    images = [torch.randn(3, 40, 56), torch.randn(3, 33, 20)]
    pixel_values, pixel_mask = torch.full((2, 3, 40, 56), 9.0), torch.zeros(2, 40, 56)
    for index, image in enumerate(images):
        pixel_values[index, :, : image.shape[1], : image.shape[2]] = image
        pixel_mask[index, : image.shape[1], : image.shape[2]] = 1
    logits = SlidingWindowSegmenter(model.eval(), sliding_window([40, 56], None, 2))(pixel_values, pixel_mask)
    for one, image in zip(logits, images):
        assert torch.equal(one, model(image[None]).logits[0])


@torch.no_grad()
def test_predicted_masks(repo, tmp_path):
    """Of images at their own size, whatever batch they are in."""
    rng = np.random.default_rng(0)
    model, processor = load_segmenter(repo)
    for name, size in (("a.png", (40, 50)), ("b.png", (20, 70))):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
    main([repo, str(tmp_path / "photos"), "-o", str(tmp_path / "m.csv"), "--masks", str(tmp_path / "masks"),
          "--sliding_window", "24x32", "--window_stride", "20"])  # fmt: skip
    for name in ("a.png", "b.png"):
        image = processor(Image.open(tmp_path / "photos" / name), do_resize=False, return_tensors="pt").pixel_values[0]
        logits = loop_over_pixels(lambda crops: model(crops).logits.double(), image, (24, 32), (20, 20))
        assert np.array_equal(np.asarray(Image.open(tmp_path / "masks" / name)), logits.argmax(0).numpy())


def test_what_is_refused(repo, data, tmp_path):
    with pytest.raises(ValueError, match="--window_stride 20x20 leaves pixels between windows of 16x32, expected at"):
        sliding_window([16, 32], 20, 1)
    with pytest.raises(ValueError, match="--window_stride goes with --sliding_window"):
        EvaluationOptions(repo, window_stride=8)
    with pytest.raises(ValueError, match="--sliding_window is a segmenter's: give it with --masks"):
        PredictionOptions(sliding_window=8)
    options = EvaluationOptions(repo, sliding_window=8, output_dir=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="--sliding_window is a segmenter's, and the data is single_label"):
        evaluate_model(options, DataOptions(str(data)))


@pytest.mark.slow
def test_two_processes_with_uneven_ends_measure_what_one_does(repo, data, tmp_path):
    """Images of two sizes, the processes' numbers of windows are unlike."""
    options = EvaluationOptions(repo, sliding_window=[32, 48], output_dir=str(tmp_path / "1"))
    _, alone = evaluate_model(options, DataOptions(str(data), problem_type="segmentation", classes=CLASSES))
    done = launch(
        "--model", repo, "--dataset", data, "--classes", *CLASSES, "--problem_type", "segmentation",
        "--per_device_eval_batch_size", 2, "--sliding_window", "32x48", "--output_dir", tmp_path / "2",
        program=["-m", "sk_transformers.cli.evaluate"], processes=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "2" / "evaluation.json").read_text())
    assert figures["sliding_window"] == {"size": [32, 48], "stride": [21, 32]} and figures["images"] == 5
    for name in ("mean_iou", "mean_accuracy", "pixel_accuracy", "per_class"):
        assert figures[name] == alone[name]
    assert figures["loss"] == pytest.approx(alone["loss"])
