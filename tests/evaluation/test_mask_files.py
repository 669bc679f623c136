"""`predict --masks` writes the pipeline's masks, of every readable file, in one place each."""

import csv

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from sk_transformers import SKFormerForSemanticSegmentation
from sk_transformers.cli.predict import main
from sk_transformers.evaluation.mask_files import mask_names, palette
from sk_transformers.evaluation.options import PredictionOptions
from sk_transformers.hub import export
from sk_transformers.image_processing import image_processor_for, segmentation_processor

from ..support.networks import drawn
from ..support.small_models import small_config

LABELS = {0: "road", 1: "car", 2: "sky"}


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    label2id = {label: index for index, label in LABELS.items()}
    config = small_config("skaformer", segmentation_hidden_size=8, id2label=LABELS, label2id=label2id)
    processor = segmentation_processor(image_processor_for((64, 96)), (64, 96))
    model = drawn(SKFormerForSemanticSegmentation(config)).float()
    return str(export(model, processor, tmp_path_factory.mktemp("repo") / "repo"))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 50)), ("night/b.jpg", (33, 70))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:300])
    return folder


def test_the_pipelines_masks(repo, photos, tmp_path):
    main([repo, str(photos), "-o", str(tmp_path / "m.csv"), "--masks", str(tmp_path / "masks"), "--top_k", "3",
          "--overlays", str(tmp_path / "overlays")])  # fmt: skip
    rows = {row["file"]: row for row in csv.DictReader((tmp_path / "m.csv").open())}
    segment = pipeline("image-segmentation", model=repo, trust_remote_code=True)
    for name, mask_name in (("a.png", "a.png"), ("night/b.jpg", "night/b.png")):
        row = rows[str(photos / name)]
        assert row["mask"] == str(tmp_path / "masks" / mask_name) and not row["error"]
        mask = Image.open(row["mask"])
        assert mask.mode == "P" and mask.size == Image.open(photos / name).size
        numbers = np.asarray(mask)
        overlay, photo = (np.asarray(Image.open(file)) for file in (tmp_path / "overlays" / mask_name, photos / name))
        height, width, _ = photo.shape  # below are the names of the classes
        assert np.array_equal(overlay[:height], np.round((photo + np.array(palette()).reshape(-1, 3)[numbers]) / 2))
        assert overlay.shape[0] > height and overlay.shape[1] == width
        for part in segment(str(photos / name)):
            number = next(index for index, label in LABELS.items() if label == part["label"])
            assert np.array_equal(np.asarray(part["mask"]) > 0, numbers == number)
        fractions = {row[f"label_{rank}"]: float(row[f"fraction_{rank}"]) for rank in (1, 2, 3)}
        for index, label in LABELS.items():
            assert fractions[label] == pytest.approx((numbers == index).mean(), rel=1e-5)
    broken = rows[str(photos / "broken.png")]
    assert broken["error"] and not broken["mask"] and not (tmp_path / "masks" / "broken.png").exists()
    written = {file.name for file in (tmp_path / "overlays").rglob("*") if file.is_file()}
    assert written == {"a.png", "b.png"}


def test_a_segmenter_is_no_classifier(repo, photos, tmp_path):
    with pytest.raises(SystemExit, match="is a segmenter, expected a classifier: predict takes it with --masks"):
        main([repo, str(photos), "-o", str(tmp_path / "c.csv")])
    with pytest.raises(ValueError, match="--masks and --embeddings are both given"):
        PredictionOptions(masks="masks", embeddings=True)


def test_pictures_are_not_written_over(repo, photos, tmp_path):
    command = [repo, str(photos), "-o", str(tmp_path / "m.csv")]
    with pytest.raises(SystemExit, match="--overlays are of masks or objects: give it with --masks or --objects"):
        main([*command, "--overlays", str(tmp_path / "overlays")])
    with pytest.raises(SystemExit, match=r"--masks .*photos would write over .*a.png, an image to predict"):
        main([*command, "--masks", str(photos)])
    with pytest.raises(SystemExit, match=r"--masks and --overlays would both be written to .*a.png"):
        main([*command, "--masks", str(tmp_path / "out"), "--overlays", str(tmp_path / "out")])


def test_names_of_masks(tmp_path):
    assert mask_names(["x/a.png", "x/y/b.jpg"]) == ["a.png", "y/b.png"] and mask_names(["x/a.jpg"]) == ["a.png"]
    with pytest.raises(ValueError, match=r"x/a.jpg and x/a.png would be written to one file, a.png"):
        mask_names(["x/a.jpg", "x/a.png"])


def test_colors_are_pascal_vocs():
    assert palette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] and len(palette()) == 768
