"""Images and Pascal VOC's XML: layouts of folders, the boxes that torchvision reads, and what is refused."""

import json
import shutil

import pytest
from torchvision.datasets import VOCDetection

from sk_transformers.data.options import DataOptions
from sk_transformers.data.problems import load_images
from sk_transformers.data.voc import DOCUMENT_TYPE, read_xml

from ..support.object_files import CLASSES, draw_objects, write_objects, write_voc, xml_of


def options_of(dataset, **options):
    return DataOptions(str(dataset), **{"problem_type": "detection", "box_only": True, **options})


def stored(data):
    """The names of images, and what is kept of their objects."""
    names = [image["path"].rpartition("/")[2].partition(".")[0] for image in data["image"]]
    return dict(zip(names, map(json.loads, data["label"])))


LAYOUTS = [
    {},
    {"images": "VOCdevkit/VOC2007/JPEGImages", "annotations": "VOCdevkit/VOC2007/Annotations",
     "sets": "VOCdevkit/VOC2007/ImageSets/Main"},
    {"images": "{split}", "annotations": "{split}", "sets": None},
    {"images": "images/{split}", "annotations": "annotations/{split}", "sets": None},
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_objects_of_cocos_json(tmp_path, layout):
    data = load_images(options_of(write_voc(tmp_path / "voc", **layout)))
    coco = load_images(options_of(write_objects(tmp_path / "coco")))
    assert data.labels == sorted(CLASSES) and coco.labels == CLASSES
    for split, name in (("train", "train"), ("validation", "val")):
        known = stored(coco.split(split))
        for image in known.values():
            for one in image["objects"]:
                one["class"] = data.labels.index(coco.labels[one["class"]])
        assert stored(data.split(split)) == {f"{name}_{number}": known[number] for number in known}
    assert "17 images of 2 classes; train 12, val" in data.account.replace("validation 5", "val 5")
    assert "Left out" not in data.account
    ordered = load_images(options_of(tmp_path / "voc", classes=CLASSES))
    assert list(stored(ordered.validation).values()) == list(stored(coco.validation).values())


def test_torchvision_reads_the_same(tmp_path):
    base = "VOCdevkit/VOC2012/"
    write_voc(tmp_path, {"train": 4, "val": 2}, f"{base}JPEGImages", f"{base}Annotations", f"{base}ImageSets/Main")
    data = load_images(options_of(tmp_path))
    for split, name in (("train", "train"), ("validation", "val")):
        theirs = VOCDetection(str(tmp_path), "2012", name)
        assert [image["path"] for image in data.split(split)["image"]] == theirs.images
        for own, (image, known) in zip(stored(data.split(split)).values(), theirs):
            assert own["size"] == [image.height, image.width]
            for one, other in zip(own["objects"], known["annotation"]["object"], strict=True):
                left, top, right, bottom = (int(other["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))
                assert one["box"] == [left - 1, top - 1, right, bottom]  # the pixels are counted from 1
                assert one["area"] == (right - left + 1) * (bottom - top + 1)
                assert data.labels[one["class"]] == other["name"]


def test_two_years_and_trainval(tmp_path):
    for year, count in (("VOC2007", 3), ("VOC2012", 4)):
        root = write_voc(tmp_path / year, {"train": count, "val": 2, "test": 1})
        both = [(root / "ImageSets/Main" / f"{name}.txt").read_text() for name in ("train", "val")]
        (root / "ImageSets/Main/trainval.txt").write_text("".join(both))
        (root / "ImageSets/Main/bar_train.txt").write_text("train_0 -1\n")
        (root / "SegmentationClass").mkdir()
        shutil.copy(root / "JPEGImages/val_0.jpg", root / "SegmentationClass/val_0.png")
    data = load_images(options_of(tmp_path))
    assert (len(data.train), len(data.validation)) == (7, 4)
    assert "Left out: 2 a mask (VOC2007/SegmentationClass/val_0.png, VOC2012/" in data.account
    whole = load_images(options_of(tmp_path, train_split="trainval"))
    assert (len(whole.train), len(whole.validation), whole.validation_split) == (11, 2, "test")
    assert len(load_images(options_of(tmp_path, train_split="trainval", validation_split="val")).validation) == 4


def test_what_the_tags_mean(tmp_path):
    """By hand: an object of one pixel, fractions, a part's box, one beyond the edge, and what is difficult."""
    file = tmp_path / "a.xml"
    box = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    part = f"<part><name>head</name>{box.format(1, 1, 2, 2)}</part>"
    file.write_text(
        "<?xml version='1.0' encoding='ISO-8859-1'?><annotation><filename>C:\\photos\\b.jpg</filename>"
        "<size><width>20</width><height>10</height></size>"
        f"<object>{part}<name> cat </name><difficult>1</difficult>{box.format(3, 4, 3, 4)}</object>"
        f"<object><name>dog</name><difficult>0</difficult>{box.format(45.5, 1, 50, 4)}</object>"
        "<object><name/></object></annotation>"
    )
    assert read_xml(str(file)) == {
        "file_name": "b.jpg", "height": 10, "width": 20, "objects": [
            {"category_id": "cat", "bbox": [2, 3, 1, 1], "iscrowd": True},
            {"category_id": "dog", "bbox": [44.5, 0, 5.5, 4], "iscrowd": False},
            {"category_id": None, "bbox": None, "iscrowd": False},
        ],
    }  # fmt: skip


def test_what_is_difficult_is_as_a_crowd(tmp_path):
    write_voc(tmp_path, {"train": 2, "val": 1})
    image, objects = next(draw_objects(1, 1))
    (tmp_path / "Annotations/val_0.xml").write_text(xml_of("val_0.jpg", image.shape, objects, difficult=1))
    (tmp_path / "Annotations/train_0.xml").write_text(xml_of("train_0.jpg", image.shape, []))
    data = load_images(options_of(tmp_path))
    assert [one["crowd"] for one in stored(data.validation)["val_0"]["objects"]] == [True, True]
    assert "3 images of 2 classes, 1 of none; train 2, val 1." in data.account


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'
FAULTS = [
    (lambda text: text[:90], r"1 damaged, or not XML \(Annotations/train_1.xml\)"),
    (lambda text: "", "1 damaged, or not XML"),
    (lambda text: BOMB, f"1 {DOCUMENT_TYPE[:20]}.* which is not read: remove <!DOCTYPE"),
    (lambda text: "<annotations/>", "1 an XML that is not Pascal VOC's annotation of an image"),
    (lambda text: text.replace("<height>64<", "<height>0<"), "1 an XML without the size of its image"),
    (
        lambda text: text.replace("<name>bar<", "<name>tree<"),
        r"1 of class 'tree', which is not among --classes, or else .* \(object 2 of Annotations/train_1",
    ),
    (lambda text: text.replace("<name>bar<", "<name> <"), "1 without a class"),
    (lambda text: text.replace("<xmin>", "<x>").replace("</xmin>", "</x>"), "2 without a box of four numbers"),
    (lambda text: text.replace("<xmin>", "<xmin>9", 1).replace("<xmax>", "<xmax>9", 1), "1 a box outside its image"),
]


@pytest.mark.parametrize(("change", "said"), FAULTS)
def test_what_cannot_be_used_is_named(tmp_path, change, said):
    write_voc(tmp_path, {"train": 4, "val": 1})
    file = tmp_path / "Annotations/train_1.xml"
    file.write_text(change(file.read_text()))
    with pytest.raises(ValueError, match=f"holds what cannot be used: {said}.*Mend or remove it, or pass"):
        load_images(options_of(tmp_path, classes=CLASSES))
    data = load_images(options_of(tmp_path, classes=CLASSES, on_bad_image="skip"))
    assert len(data.train) == 3 + ("object" in said or "box" in said or "a class" in said)
    assert data.account.count(said[:12].replace("\\", "")) == 1


def test_boxes_of_no_area_and_classes_of_one_split(tmp_path):
    write_voc(tmp_path, {"train": 4, "val": 1})
    file = tmp_path / "Annotations/train_0.xml"
    text = file.read_text()
    file.write_text(text.replace("<xmax>", "<xmax>-", 1))
    assert "1 a box of no area (object 1 of Annotations/train_0.xml)" in load_images(options_of(tmp_path)).account
    file = tmp_path / "Annotations/val_0.xml"
    file.write_text(file.read_text().replace("bar", "tree"))
    with pytest.raises(ValueError, match="split val, holds what cannot be used: 1 of class 'tree', which is not among"):
        load_images(options_of(tmp_path))


def test_images_and_annotations_that_miss_each_other(tmp_path):
    write_voc(tmp_path, {"train": 5, "val": 1})
    (tmp_path / "JPEGImages/train_1.jpg").unlink()
    (tmp_path / "Annotations/train_2.xml").unlink()
    with pytest.raises(ValueError, match=r"1 in an image set, and without an annotation \(train_2 of ImageSets/Main/"):
        load_images(options_of(tmp_path))
    data = load_images(options_of(tmp_path, on_bad_image="skip"))
    assert list(stored(data.train)) == ["train_0", "train_3", "train_4"]
    said = "1 named in an XML, and not there, or more than once (train_1.jpg of Annotations/train_1.xml)"
    assert said in data.account
    (tmp_path / "JPEGImages/train_3.jpg").rename(tmp_path / "JPEGImages/other.jpg")  # by its `filename`
    file = tmp_path / "Annotations/train_3.xml"
    file.write_text(file.read_text().replace("train_3.jpg", "other.jpg"))
    (tmp_path / "ImageSets/Main/train.txt").write_text("train_3\n")
    data = load_images(options_of(tmp_path))
    assert list(stored(data.train)) == ["other"] and "3 in no image set (Annotations/train_0.xml" in data.account


def test_what_else_is_refused(tmp_path):
    write_voc(tmp_path)
    with pytest.raises(ValueError, match="has Pascal VOC's XML, which holds boxes and no masks: pass --box_only"):
        load_images(options_of(tmp_path, box_only=False))
    with pytest.raises(ValueError, match="--label_column a: Pascal VOC's XML has no columns: leave it out"):
        load_images(options_of(tmp_path, label_column="a"))
    with pytest.raises(ValueError, match="--validation_split x: .* has train, val"):
        load_images(options_of(tmp_path, validation_split="x"))
    (tmp_path / "ImageSets/Main/val.txt").write_text("val_0\nval_1\nval_0\n")
    with pytest.raises(ValueError, match="val.txt lists val_0 twice: give each image one line"):
        load_images(options_of(tmp_path))
