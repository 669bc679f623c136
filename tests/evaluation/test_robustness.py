"""Corruptions against the library called by hand, and their figures against the paper's formulas."""

import io
import json
import sys
import zlib
from types import SimpleNamespace

import imagecorruptions
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from rich.console import Console
from transformers import ConvNextImageProcessor, ViTImageProcessor

from sk_transformers.data import corruptions as corruption_module
from sk_transformers.data.corruptions import (
    COMMON_CORRUPTIONS,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    CorruptingTransform,
    choose_corruptions,
    corrupt,
    library_version,
)
from sk_transformers.data.loaders import eval_loader, read_image
from sk_transformers.data.transforms import eval_transform
from sk_transformers.evaluation.plots import plot_robustness
from sk_transformers.evaluation.robustness import (
    check_same_images,
    corrupted_accuracy,
    load_baseline,
    robustness_table,
    summarize_robustness,
)

from ..support.image_files import load_images, write_images


@pytest.fixture
def picture():
    coarse = np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((40, 36), Image.Resampling.BICUBIC)


def by_hand(image, name, severity, seed):
    """A corruption as the library has it, which takes seeds in two ways."""
    np.random.seed(seed)
    seeded = {"seed": seed} if name in ("impulse_noise", "glass_blur") else {}
    return imagecorruptions.corrupt(image, severity, name, **seeded)


def test_names():
    for group, names in COMMON_CORRUPTIONS.items():
        assert names == imagecorruptions.get_corruption_names(group)
    assert imagecorruptions.get_corruption_names("validation") == EXTRA_CORRUPTIONS
    assert choose_corruptions([]) == imagecorruptions.get_corruption_names("common")
    assert choose_corruptions(["all"]) == imagecorruptions.get_corruption_names("all")
    assert choose_corruptions(["snow", "noise", "shot_noise"]) == [*COMMON_CORRUPTIONS["noise"], "snow"]
    with pytest.raises(ValueError, match=r"'gausian_noise', which is not a corruption: did you mean 'gaussian"):
        choose_corruptions(["gausian_noise"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_the_library_s_and_repeat(picture, name):
    image = np.asarray(picture)
    before = np.random.get_state()[1].copy()
    for severity in (1, 5):
        once, again, other = (corrupt(image, name, severity, seed) for seed in (7, 7, 8))
        assert (np.random.get_state()[1] == before).all()
        assert (once == again).all()
        state = np.random.get_state()
        assert (once == by_hand(image, name, severity, 7)).all()
        np.random.set_state(state)
        assert once.shape == image.shape and once.dtype == np.uint8 and (once != image).any()
        drawn = name not in (
            "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur",
            "saturate",
        )  # fmt: skip
        assert (once != other).any() == drawn


def test_small_images(picture):
    """What is reflected to reach the library's 32 pixels does not come back."""
    image = np.asarray(picture.resize((28, 30)))
    padded = np.concatenate([image[:1], image, image[-1:]])
    padded = np.concatenate([padded[:, 1::-1], padded, padded[:, :-3:-1]], axis=1)
    assert padded.shape == (32, 32, 3)
    assert (corrupt(image, "frost", 3, 1) == by_hand(padded, "frost", 3, 1)[1:31, 2:30]).all()
    assert corrupt(image[:1, :1], "fog", 3, 1).shape == (1, 1, 3)


def test_spatter_without_a_drop():
    """The library divides 0 by 0 when no drop falls on a small image, and turns it black."""
    image = np.full((32, 32, 3), 200, np.uint8)
    corrupted = [corrupt(image, "spatter", 1, seed) for seed in range(300)]
    unchanged = [image for image in corrupted if (image == 200).all()]
    assert 0 < len(unchanged) < 100
    assert min(image.max() for image in corrupted) >= 200


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessor(size={"height": 33, "width": 47}, image_mean=[0.1, 0.2, 0.3]),
        ConvNextImageProcessor(size={"shortest_edge": 40}, crop_pct=0.875),
        ConvNextImageProcessor(size={"shortest_edge": 384}),
    ],
    ids=["ViT", "crop", "no crop"],
)
def test_only_the_corruption_differs_from_what_the_processor_does(picture, processor, monkeypatch):
    transform = CorruptingTransform(processor)
    transform.set_condition("contrast", 4)
    corrupted = transform(picture)
    expected = eval_transform(processor)(picture)
    assert corrupted.shape == expected.shape and (corrupted - expected).abs().max() > 0.1
    monkeypatch.setattr(corruption_module, "corrupt", lambda image, *condition: image)
    assert torch.equal(transform(picture), expected)


class Projection(torch.nn.Module):
    """A classifier that noise confuses."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3 * 32 * 32, 2, bias=False)

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.head(pixel_values.flatten(1)))


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_accuracy_against_a_calculation_by_hand(tmp_path, num_workers):
    data = load_images(str(write_images(tmp_path, images=25)), train_val_split=0.2)
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    torch.manual_seed(0)
    accelerator, model = Accelerator(cpu=True), Projection()
    conditions = ["gaussian_noise", "glass_blur", "frost"], [1, 4]

    expected = {name: [] for name in conditions[0]}
    for name in conditions[0]:
        for severity in conditions[1]:
            hits = []
            for row in data.train:
                image = read_image(row["image"])
                seed = zlib.crc32(image.tobytes() + f"{name} {severity}".encode())
                seen = processor(image, do_rescale=False, do_normalize=False).pixel_values[0]
                values = by_hand(np.asarray(seen).transpose(1, 2, 0), name, severity, seed) / 255 * 2 - 1
                logits = model(torch.tensor(values.transpose(2, 0, 1)[None], dtype=torch.float32)).logits
                hits.append(logits.argmax().item() == row["label"])
            expected[name].append(sum(hits) / len(hits))
    assert len({value for values in expected.values() for value in values}) > 3  # not one answer for all

    transform, passes = CorruptingTransform(processor), []
    loader = accelerator.prepare(eval_loader(data.train, transform, 16, num_workers))
    measured = corrupted_accuracy(accelerator, model, loader, transform, *conditions, report=lambda: passes.append(1))
    assert measured == {name: pytest.approx(values) for name, values in expected.items()}
    assert len(passes) == 6


TOP1 = {"gaussian_noise": [0.8, 0.6], "snow": [0.5, 0.3], "spatter": [0.9, 0.1]}
BASELINE = {
    "model": "vit",
    "top1": 0.8,
    "robustness": {
        "severities": [1, 3, 5],
        "image_size": [32, 32],
        "corruptions": {
            "gaussian_noise": {"top1": [0.7, 0.0, 0.5]},
            "snow": {"top1": [0.6, 0.0, 0.4]},
            "spatter": {"top1": [0.8, 0.0, 0.8]},
        },
    },
}


def test_figures_are_the_paper_s():
    figures = summarize_robustness(0.9, TOP1, [1, 5], BASELINE)
    rows = figures["corruptions"]
    assert [row["group"] for row in rows.values()] == ["noise", "weather", "extra"]
    assert [row["error"] for row in rows.values()] == pytest.approx([0.3, 0.6, 0.5])
    assert figures["mean_error"] == pytest.approx(0.45)  # spatter is none of the 15
    ce = [(0.2 + 0.4) / (0.3 + 0.5), (0.5 + 0.7) / (0.4 + 0.6)]
    assert [rows["gaussian_noise"]["ce"], rows["snow"]["ce"]] == pytest.approx(ce)
    assert figures["mce"] == pytest.approx(sum(ce) / 2)
    relative = [(0.1 + 0.3) / (0.1 + 0.3), (0.4 + 0.6) / (0.2 + 0.4)]
    assert [rows["gaussian_noise"]["relative_ce"], rows["snow"]["relative_ce"]] == pytest.approx(relative)
    assert figures["relative_mce"] == pytest.approx(sum(relative) / 2)
    assert rows["spatter"]["relative_ce"] is None  # it costs the baseline nothing
    assert "mce" not in summarize_robustness(0.9, TOP1, [1, 5])

    bad = json.loads(json.dumps(BASELINE))
    bad["robustness"]["corruptions"]["snow"]["top1"] = [1.0, 1.0, 1.0]
    figures = summarize_robustness(0.9, TOP1, [1, 5], bad)
    assert figures["corruptions"]["snow"]["ce"] is None and figures["mce"] is None
    assert summarize_robustness(0.9, {"spatter": [0.9, 0.1]}, [1, 5])["mean_error"] is None


def test_table_and_plot(tmp_path):
    console = Console(width=100, file=io.StringIO())
    console.print(robustness_table(summarize_robustness(0.9, TOP1, [1, 5], BASELINE), 0.9))
    lines = [line.split() for line in console.file.getvalue().replace("│", " ").splitlines()]
    assert ["none", "10.0"] in lines
    assert ["snow", "50.0", "30.0", "60.0", "120.0", "166.7"] in lines
    assert ["spatter", "90.0", "10.0", "50.0", "250.0", "-"] in lines
    assert ["mean", "of", "the", "common", "45.0", "97.5", "133.3"] in lines
    for baseline in (None, BASELINE):
        plot_robustness(summarize_robustness(0.9, TOP1, [1, 5], baseline), 0.9, tmp_path / "plot.png", baseline)
        with Image.open(tmp_path / "plot.png") as plot:
            assert min(plot.size) > 400


@pytest.mark.parametrize(
    ("content", "wanted", "sentence"),
    [
        (None, (["snow"], [1], [32, 32]), "is not there: expected the evaluation.json"),
        ("{", (["snow"], [1], [32, 32]), "is not an evaluation under --corruptions"),
        ('{"top1": 0.5}', (["snow"], [1], [32, 32]), "is not an evaluation under --corruptions"),
        (json.dumps(BASELINE), (["fog"], [1], [32, 32]), "lacks corruption fog"),
        (json.dumps(BASELINE), (["snow"], [1, 2], [32, 32]), "lacks severity 2"),
        (json.dumps(BASELINE), (["snow"], [1], [224, 224]), "saw images of 32x32, this model 224x224"),
    ],
)
def test_wrong_baselines(tmp_path, content, wanted, sentence):
    file = tmp_path / "evaluation.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        load_baseline(str(file), *wanted)
    file.write_text(json.dumps(BASELINE))
    assert load_baseline(str(file), ["snow"], [5], [32, 32]) == BASELINE


def test_baselines_of_other_images():
    this = {"images": 3, "dataset": "here", "split": "train", "labels_sha256": "a"}
    check_same_images(this, this)
    with pytest.raises(
        ValueError, match=r"other images than this evaluation: 3 of there \(train\), not these 3 of here"
    ):
        check_same_images({**this, "dataset": "there", "labels_sha256": "b"}, this)


def test_missing_library(monkeypatch):
    assert library_version().startswith("imagecorruptions-imaug 1.")
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(ImportError, match=r"--corruptions needs .*pip install 'sk-transformers\[robustness\]'"):
        library_version()
