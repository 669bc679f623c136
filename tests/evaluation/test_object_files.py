"""`predict --objects` writes the pipeline's boxes, and the model's masks, as COCO's JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from transformers import pipeline

from sk_transformers import SKFormerForObjectDetection
from sk_transformers.cli.predict import main
from sk_transformers.evaluation.mask_files import palette
from sk_transformers.evaluation.options import PredictionOptions
from sk_transformers.hub import export
from sk_transformers.image_processing import detection_processor, image_processor_for

from ..models.test_detection import confident
from ..support.small_models import small_config

LABELS = {0: "car", 1: "cat", 2: "cow"}


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    label2id = {label: index for index, label in LABELS.items()}
    torch.manual_seed(0)
    model = SKFormerForObjectDetection(
        small_config("skaformer", detection_hidden_size=8, id2label=LABELS, label2id=label2id)
    )
    processor = detection_processor(image_processor_for((64, 96)), (64, 96))
    return str(export(confident(model.eval()), processor, tmp_path_factory.mktemp("repo") / "repo"))


def test_the_pipelines_boxes(repo, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name, size in (("a.png", (40, 50)), ("b.png", (33, 70))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "broken.png").write_bytes((tmp_path / "photos" / "a.png").read_bytes()[:300])
    output = tmp_path / "objects.json"
    main([repo, str(tmp_path / "photos"), "-o", str(output), "--objects", "--min_score", "0.3",
          "--overlays", str(tmp_path / "overlays")])  # fmt: skip
    content = json.loads(output.read_text())
    assert [one["name"] for one in content["categories"]] == list(LABELS.values())
    assert [one["file_name"] for one in content["unreadable"]] == [str(tmp_path / "photos" / "broken.png")]
    assert {file.name for file in (tmp_path / "overlays").iterdir()} == {"a.png", "b.png"}
    coco = COCO(output)
    detect = pipeline("object-detection", model=repo, trust_remote_code=True)
    for image in content["images"]:
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        expected = detect(image["file_name"], threshold=0.3)
        assert len(found) == len(expected) > 0
        overlay = np.asarray(Image.open(tmp_path / "overlays" / Path(image["file_name"]).name))
        assert overlay.shape == (image["height"], image["width"], 3)
        assert (overlay == palette()[3 * found[0]["category_id"] :][:3]).all(-1).any()
        for one, other in zip(found, expected):
            left, top, width, height = one["bbox"]
            box = list(other["box"].values())
            assert np.abs(np.array([left, top, left + width, top + height]) - box).max() <= 1.01  # which are cut
            assert coco.cats[one["category_id"]]["name"] == other["label"]
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)
            mask = coco.annToMask(one)
            assert mask.shape == (image["height"], image["width"]) and mask.sum() == one["area"]


def test_what_is_refused(repo, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(SystemExit, match="is a detector, expected a classifier: predict takes it with --objects"):
        main([repo, str(tmp_path), "-o", str(tmp_path / "c.csv")])
    with pytest.raises(SystemExit, match="ends in none of .json: choose one of these formats"):
        main([repo, str(tmp_path), "-o", str(tmp_path / "c.csv"), "--objects"])
    with pytest.raises(ValueError, match="--masks and --objects are both given"):
        PredictionOptions(masks="masks", objects=True)
