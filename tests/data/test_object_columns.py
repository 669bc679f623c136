"""Images and objects in parquet: forms of the column, boxes and classes as they are stored, and what is refused."""

import json

import pytest
from datasets import ClassLabel, Dataset, Value
from PIL import Image

from sk_transformers.data.object_columns import fits, read_size
from sk_transformers.data.options import DataOptions
from sk_transformers.data.problems import load_images

from ..support.object_files import CLASSES, objects_table, write_objects


def options_of(dataset, **options):
    return DataOptions(str(dataset), **{"problem_type": "detection", "box_only": True, **options})


def write(folder, change=lambda row: row, counts=(("train", 12), ("validation", 5)), drop=(), **form):
    """Parquet files of splits, of which rows are changed and columns left out."""
    folder.mkdir(exist_ok=True)
    for seed, (split, count) in enumerate(counts):
        table = objects_table(count, seed, **form).remove_columns(list(drop)).with_format("arrow")
        rows = [change(row) if split == "train" else row for row in table[:].to_pylist()]
        Dataset.from_list(rows, table.features).to_parquet(str(folder / f"{split}.parquet"))
    return folder


def stored(data):
    return [json.loads(objects) for objects in data["label"]]


FORMS = [
    ({}, {}),
    ({"in_lists": False}, {}),
    ({"box_format": "xyxy"}, {"box_format": "xyxy"}),
    ({"category": Value("string")}, {"classes": CLASSES}),
    ({"category": Value("int32")}, {"classes": CLASSES}),
    ({"drop": ["width", "height"]}, {}),
]


@pytest.mark.parametrize(("form", "options"), FORMS)
def test_forms_of_a_column_give_the_objects_of_cocos_json(tmp_path, form, options):
    coco = load_images(options_of(write_objects(tmp_path / "coco")))
    data = load_images(options_of(write(tmp_path / "columns", **form), **options))
    assert data.labels == CLASSES and "17 images of 2 classes; train 12, validation 5." in data.account
    assert "Left out" not in data.account
    for split in ("train", "validation"):
        assert stored(data.split(split)) == stored(coco.split(split))


def test_classes_go_by_their_names(tmp_path):
    data = load_images(options_of(write(tmp_path, category=Value("string"))))
    assert data.labels == sorted(CLASSES)
    objects_table(5, 1, category=ClassLabel(names=[*reversed(CLASSES)])).to_parquet(
        str(tmp_path / "validation.parquet")
    )
    data = load_images(options_of(tmp_path, classes=CLASSES))
    first = stored(data.validation)[0]["objects"]
    assert [one["class"] for one in first] == [1, 0]  # what is stored as 0 is called `bar` there


def test_a_held_out_part_of_one_file_and_other_names(tmp_path):
    table = objects_table(6).rename_column("objects", "things").rename_column("image", "picture")
    table.add_column("number", list(range(6))).to_parquet(str(tmp_path / "all.parquet"))
    data = load_images(options_of(tmp_path / "all.parquet", train_val_split=0.5))
    assert (len(data.train), len(data.validation)) == (3, 3)
    with pytest.raises(ValueError, match="its column of objects has no parts, expected boxes .*: choose another with"):
        load_images(options_of(tmp_path / "all.parquet", label_column="number"))


def changed(part, value, row=0):
    def change(cells):
        if cells["width"] == 64:  # every second image, the first one among them
            cells["objects"][part][row] = value
        return cells

    return change


def without(cells):
    return {**cells, "objects": None if cells["width"] == 64 else cells["objects"]}


def uneven(cells):
    return {**cells, "objects": {**cells["objects"], "category": cells["objects"]["category"][:1]}}


FAULTS = [
    (changed("bbox", [70, 2, 3, 3]), True, r"2 a box outside its image \(object 1 of row 0 of train, object 1", 4),
    (changed("bbox", [5, 5, 0, 4], row=1), False, r"2 a box of no area \(object 2 of row 0 of train, object 2", 4),
    (changed("bbox", [1, 2, 3, float("nan")]), True, "2 without a box of four numbers", 4),
    (changed("category", None), True, "2 without a class", 4),
    (changed("category", -1), True, "2 of class -1, which is not among --classes, or else those of", 4),
    (without, True, r"2 without a list of objects \(row 0 of train, row 2 of train\)", 2),
    (uneven, True, "4 with boxes and classes of different numbers", 0),
    (lambda cells: {**cells, "image": None}, True, "4 without an image", 0),
    (
        lambda cells: {"image": {"bytes": b"x", "path": None}, "width": None, "height": 4, "objects": cells["objects"]},
        True, "4 of an image that cannot be read", 0,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "is_fault", "said", "left"), FAULTS)
def test_what_cannot_be_used_is_named(tmp_path, change, is_fault, said, left):
    write(tmp_path, change, [("train", 4), ("validation", 1)])
    if is_fault:
        with pytest.raises(ValueError, match=f"holds what cannot be used: {said}.*Mend or remove it, or pass"):
            load_images(options_of(tmp_path))
    options = options_of(tmp_path, on_bad_image="skip" if is_fault else "error")
    if left:
        data = load_images(options)
        assert len(data.train) == left and f"Left out: {said[:16]}" in data.account
    else:
        with pytest.raises(ValueError, match=f"has no image that can be used in train: {said}"):
            load_images(options)


def test_images_without_objects_and_crowds(tmp_path):
    def change(cells):
        return {**cells, "objects": {"bbox": [], "category": []} if cells["width"] == 64 else cells["objects"]}

    write(tmp_path, change, [("train", 4), ("validation", 1)])
    assert "5 images of 2 classes, 2 of none; train 4" in load_images(options_of(tmp_path)).account
    table = objects_table(2)
    rows = [{**row, "objects": {**row["objects"], "iscrowd": [0, 1], "area": [7.5, 8.0]}} for row in table]
    Dataset.from_list(rows).cast_column("image", table.features["image"]).to_parquet(str(tmp_path / "crowds.parquet"))
    (one, _) = stored(load_images(options_of(tmp_path / "crowds.parquet", classes=["2"]), hold_out=False).train)
    assert [(part["area"], part["crowd"]) for part in one["objects"]] == [(7.5, False), (8.0, True)]


def test_an_image_that_lies_on_its_side(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_size({"path": str(tmp_path / "a.jpg"), "bytes": None}) == (4, 9)
    assert read_size({"path": None, "bytes": (tmp_path / "a.jpg").read_bytes()[:9]}) is None


def test_boxes_of_the_other_format(tmp_path):
    write(tmp_path / "corners", box_format="xyxy")
    with pytest.raises(ValueError, match="of its 24 boxes .* as --box_format xywh reads .* and 0 as xyxy: pass --box_"):
        load_images(options_of(tmp_path / "corners"))
    write(tmp_path / "sides")
    with pytest.raises(ValueError, match="as --box_format xyxy reads them, and 0 as xywh: pass --box_format xywh"):
        load_images(options_of(tmp_path / "sides", box_format="xyxy"))
    assert fits([0, 0, 9, 5], 9, 4) and not fits([0, 0, 9, 5.5], 9, 4) and not fits([1, 1, 0, 2], 9, 4)


def test_what_else_is_refused(tmp_path):
    write(tmp_path, category=Value("int64"))
    with pytest.raises(ValueError, match="has a column of objects, which holds boxes and no masks: pass --box_only"):
        load_images(options_of(tmp_path, box_only=False))
    with pytest.raises(
        ValueError, match="--classes is missing: the objects of .* have no names of classes, such as [01], so give"
    ):
        load_images(options_of(tmp_path))
    with pytest.raises(ValueError, match="no 'things' among them: name it with --label_column"):
        load_images(options_of(tmp_path, label_column="things"))
    with pytest.raises(ValueError, match="--file_column a is for tables of labels, not for objects"):
        load_images(options_of(tmp_path, file_column="a"))
    with pytest.raises(ValueError, match="--box_format is for objects, and --problem_type is single_label"):
        DataOptions("images", box_format="xyxy")
