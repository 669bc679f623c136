"""What reaches the model: images good and bad, in an order that can be taken up again anywhere."""

import io
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from PIL import Image
from timm.data import create_transform
from torchvision import transforms
from transformers import ViTImageProcessor

from sk_transformers.data.loaders import DataError, TrainLoader, close_loader, eval_loader, read_image
from sk_transformers.data.options import AugmentationOptions
from sk_transformers.data.seeds import seed_sample
from sk_transformers.data.transforms import Scaling, eval_transform, make_mixup, train_transform
from sk_transformers.image_processing import output_size

from ..support.image_files import load_images, write_images

PROCESSOR = ViTImageProcessor(size={"height": 8, "width": 6})


def transform(processor=PROCESSOR, **options):
    return train_transform(processor, AugmentationOptions(**options))


def image_of(content):
    return {"bytes": content, "path": None}


def encoded(image, **how):
    buffer = io.BytesIO()
    image.save(buffer, **how)
    return image_of(buffer.getvalue())


# Scaling


@pytest.mark.parametrize("size", [(5, 4), (64, 48)])
def test_scaling_is_that_of_torchvision(size):
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    image = Image.effect_noise(size, 90).convert("RGB")
    image.paste((255, 0, 7), (0, 0, 2, 2))
    expected = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])(image)
    scaled = Scaling(mean, std)(image)
    assert scaled.is_contiguous()
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-6)


# Decoding


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "CMYK"])
def test_every_kind_of_image_becomes_rgb(mode):
    image = Image.new(mode, (5, 4))
    assert read_image(encoded(image, format="TIFF" if mode == "CMYK" else "PNG")).mode == "RGB"


def test_sixteen_bits_are_scaled_and_not_cut_off():
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    decoded = np.asarray(read_image(encoded(Image.fromarray(values), format="PNG")))
    assert decoded[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_photograph_taken_sideways_is_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    image = Image.new("RGB", (6, 4))
    image.paste((255, 0, 0), (0, 0, 3, 4))  # left half, which is the upper half once upright
    decoded = read_image(encoded(image, format="PNG", exif=exif))
    assert decoded.size == (4, 6)
    assert decoded.getpixel((1, 0)) == (255, 0, 0) and decoded.getpixel((1, 5)) == (0, 0, 0)


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_unreadable_images_are_named(tmp_path, damage):
    file = break_one(write_images(tmp_path), damage)
    data = load_images(tmp_path, train_val_split=0.2)
    with pytest.raises(DataError, match=rf"{file.parent.name}/3.png is unreadable \(.+\): mend or remove it"):
        for split in (data.train, data.validation):
            list(eval_loader(split, eval_transform(PROCESSOR), 4))


def break_one(folder, damage="text"):
    file = folder / "cat" / "3.png"
    content = file.read_bytes()
    file.write_bytes({"truncated": content[:200], "text": b"not an image"}[damage])
    return file


def test_unreadable_images_can_be_skipped(tmp_path, caplog):
    break_one(write_images(tmp_path))
    images = load_dataset("imagefolder", data_dir=str(tmp_path), split="train")
    data = load_images(tmp_path)
    data.train = images.cast_column("image", data.train.features["image"])
    loader = TrainLoader(data, eval_transform(PROCESSOR), 5, num_batches=4, seed=0, skip_unreadable=True)
    batches = list(loader.batches(epoch=0))
    assert sum(int(batch["unreadable"]) for batch in batches) == 1
    assert "cat/3.png is unreadable" in caplog.text
    shown = {image.numpy().tobytes() for batch in batches for image in batch["pixel_values"]}
    assert len(shown) == 19  # the next image stood in
    labels = torch.cat([batch["labels"] for batch in eval_loader(data.train, eval_transform(PROCESSOR), 6, 0, True)])
    assert (labels == -100).sum() == 1 and len(labels) == 20


# Augmentation


def test_evaluation_is_the_processor_and_training_scales_values_as_it_does():
    image = Image.effect_noise((20, 24), 50).convert("RGB")
    assert output_size(PROCESSOR) == (8, 6)
    evaluated = eval_transform(PROCESSOR)(image)
    assert torch.equal(evaluated, PROCESSOR(image, return_tensors="pt").pixel_values[0])
    trained = transform(crop_scale=[1, 1], hflip=0)(image)
    assert trained.shape == evaluated.shape == (3, 8, 6)
    assert abs(trained.mean() - evaluated.mean()) < 0.05
    flipped = transform(crop_scale=[1, 1], hflip=1)(image)
    assert abs(flipped - trained.flip(-1)).mean() < abs(flipped - trained).mean()


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("size", [(90, 70), (20, 12)])  # crops are made smaller, and larger
def test_random_crops_are_timms_to_a_level_of_256(resample, size):
    processor = ViTImageProcessor(
        size={"height": 32, "width": 24}, resample=resample, image_mean=[0] * 3, image_std=[1] * 3
    )
    name = resample.name.lower()
    timms = create_transform((3, 32, 24), is_training=True, scale=(0.2, 1), color_jitter=None, interpolation=name)
    image = Image.effect_noise(size, 90).convert("RGB")
    levels = []
    for change in (transform(processor, crop_scale=[0.2, 1.0]), transforms.Compose(timms.transforms[:3])):
        seed_sample(3)
        levels.append((change(image) * 255).round().int())
    assert levels[0].float().std() > 20
    difference = (levels[0] - levels[1]).abs()
    assert difference.max() <= 2 and (difference > 0).float().mean() < 0.02


def test_padded_crops_move_the_image():
    processor = ViTImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    image = Image.new("RGB", (8, 8), (255, 255, 255))
    crop = transform(processor, crop_padding=4, hflip=0)
    seen = {int(crop(image)[0].sum().round()) for _ in range(40)}
    assert max(seen) <= 64 and min(seen) < 40  # black borders come in, and nothing is resized


@pytest.mark.parametrize(
    "given",
    [
        {"auto_augment": "rand-m9-mstd0.5-inc1"},
        {"auto_augment": "augmix-m3-w3"},
        {"color_jitter": 0.4},
        {"random_erasing": 1.0},
        {"rotation": 45},
        {"vflip": 1},
        {"auto_augment": "rand-m9", "color_jitter": 0.4, "random_erasing": 1.0, "crop_padding": 1},
    ],
)
def test_each_augmentation_changes_the_image(given):
    processor = ViTImageProcessor(size={"height": 24, "width": 24})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8))
    without = transform(processor, crop_scale=[1, 1], hflip=0)(image)
    changed = transform(processor, **{"crop_scale": [1, 1], "hflip": 0, **given})
    results = [changed(image) for _ in range(4)]
    assert all(result.shape == without.shape for result in results)
    assert any(not torch.equal(result, without) for result in results)


def test_unknown_policy():
    with pytest.raises(ValueError, match="--auto_augment cutout is not a policy of timm: expected one such as rand-m9"):
        transform(auto_augment="cutout")


def test_mixup_makes_soft_labels():
    images, labels = torch.rand(8, 3, 4, 4), torch.arange(8)
    mixed, targets = make_mixup(AugmentationOptions(mixup=0.8), 10)(images.clone(), labels)
    torch.testing.assert_close(targets.sum(-1), torch.ones(8))
    weights = targets[torch.arange(8), labels].view(-1, 1, 1, 1)
    torch.testing.assert_close(mixed, weights * images + (1 - weights) * images.flip(0))
    assert make_mixup(AugmentationOptions(), 10) is None


# Order


def loader(data, batch_size=4, num_batches=3, **settings):
    return TrainLoader(data, transform(), batch_size, num_batches, 0, **settings)


def pixels(batches):
    return [batch["pixel_values"].numpy().tobytes() for batch in batches]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return load_images(str(write_images(tmp_path_factory.mktemp("images"), images=12)), train_val_split=0.25)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_from_any_batch(images, workers):
    whole = pixels(loader(images).batches(epoch=3))
    assert len(whole) == 3
    assert pixels(loader(images, num_workers=workers).batches(epoch=3, first_batch=1)) == whole[1:]
    other = pixels(loader(images).batches(epoch=4))
    assert not set(whole) & set(other)


@pytest.mark.parametrize("keep", [False, True])
def test_processes_outlive_a_first_signal_only_where_they_are_kept(images, keep):
    """Torch's own SIGTERM at the end of a program would not end a kept one: whoever keeps it closes the loader."""
    whole = pixels(eval_loader(images.train, eval_transform(PROCESSOR), 3))
    batches = iter(kept := eval_loader(images.train, eval_transform(PROCESSOR), 3, num_workers=1, keep_workers=keep))
    first = next(batches)
    (process,) = multiprocessing.active_children()
    os.kill(process.pid, signal.SIGTERM)
    if keep:
        assert pixels([first, *batches]) == pixels(kept) == whole
        assert process.is_alive()
        close_loader(kept)
        assert pixels(kept) == whole  # with another process
        close_loader(kept)
    else:
        process.join(20)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_closed_loader_has_no_processes_and_starts_others(images, workers):
    training = loader(images, num_workers=workers)
    whole = pixels(training.batches(epoch=3))
    held = training.batches(epoch=3)  # as the traceback of an error would
    next(held)
    training.close()
    assert not multiprocessing.active_children()
    assert pixels(training.batches(epoch=3)) == whole
    training.close()


def test_processes_share_the_batches_of_one(images):
    one = list(loader(images, batch_size=4).batches(epoch=1))
    shares = [list(loader(images, batch_size=2, rank=rank, num_processes=2).batches(epoch=1)) for rank in (0, 1)]
    for whole, *parts in zip(one, *shares):
        for name in ("pixel_values", "labels"):
            assert torch.equal(whole[name], torch.cat([part[name] for part in parts]))


def test_each_image_comes_once_an_epoch(images):
    batches = list(TrainLoader(images, eval_transform(PROCESSOR), 3, 6, 0).batches(epoch=0))
    shown = [image.numpy().tobytes() for batch in batches for image in batch["pixel_values"]]
    assert len(shown) == len(set(shown)) == len(images.train) == 18


def test_few_images_are_drawn_more_than_once(images):
    batch, *_ = TrainLoader(images, eval_transform(PROCESSOR), 40, 1, 0).batches(epoch=0)
    counts = np.unique([image.numpy().tobytes() for image in batch["pixel_values"]], return_counts=True)[1]
    assert len(batch["labels"]) == 40 and counts.min() >= 2 and counts.max() <= 3


def test_repeated_augmentation(images):
    batch, *_ = TrainLoader(images, eval_transform(PROCESSOR), 9, 2, 0, repeats=3).batches(epoch=0)
    shown = [image.numpy().tobytes() for image in batch["pixel_values"]]
    assert shown[0] == shown[1] == shown[2] != shown[3]
    batch, *_ = loader(images, batch_size=9, repeats=3).batches(epoch=0)
    assert not torch.equal(batch["pixel_values"][0], batch["pixel_values"][1])  # each copy is augmented anew


# Streams


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """Twelve images of each class in four parquet files, so that processes and workers share them."""
    folder = tmp_path_factory.mktemp("stream")
    table = load_dataset("imagefolder", data_dir=str(write_images(folder / "images", images=12)), split="train")
    (folder / "parquet").mkdir()
    for shard in range(4):
        table.shard(4, shard).to_parquet(folder / "parquet" / f"train-{shard}.parquet")
    table.shard(4, 0).to_parquet(folder / "parquet" / "validation-0.parquet")
    return load_images(folder / "parquet", streaming=True)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_from_any_batch(stream, workers):
    settings = {"num_workers": workers, "shuffle_buffer": 5, "num_batches": 9}  # one and a half passes
    whole = pixels(loader(stream, **settings).batches(epoch=2))
    assert len(whole) == len(set(whole)) == 9
    assert pixels(loader(stream, **settings).batches(epoch=2, first_batch=7)) == whole[7:]
    assert pixels(loader(stream, **settings).batches(epoch=3)) != whole


@pytest.mark.slow
def test_workers_of_a_stream_do_not_move_each_other_on(stream):
    shuffled = loader(stream, num_workers=2, shuffle_buffer=5, num_batches=9)
    assert len(pixels(shuffled.batches(epoch=2))) == 9
    assert shuffled.order.stream.epoch == 0  # lies in shared memory: where one worker sets it, it is set for all


@pytest.mark.slow
def test_processes_share_a_stream(stream):
    shown = []
    for rank in (0, 1):
        batches = TrainLoader(stream, eval_transform(PROCESSOR), 4, 3, 0, rank=rank, num_processes=2).batches(epoch=0)
        shown.append({image.numpy().tobytes() for batch in batches for image in batch["pixel_values"]})
    assert len(shown[0]) == len(shown[1]) == 12 and not shown[0] & shown[1]


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_null_in_a_stream_obeys_on_bad_image(stream, column):
    """Row 0 has no image, or no label: it is an error, or counted and never in a batch."""
    rows = [row | ({column: None} if index == 0 else {}) for index, row in enumerate(stream.train.take(4))]
    holed = replace(stream, train=Dataset.from_list(rows, stream.train.features).to_iterable_dataset())
    with pytest.raises(DataError, match="--on_bad_image skip"):
        list(loader(holed, num_batches=1, batch_size=3).batches(epoch=0))
    batches = list(loader(holed, num_batches=2, batch_size=3, skip_unreadable=True).batches(epoch=0))
    assert sum(int(batch["unreadable"]) for batch in batches) in (1, 2)  # two passes of three good rows
    assert all(0 <= label < 2 for batch in batches for label in batch["labels"].tolist())


def test_a_stream_has_its_validation_split_loaded(stream):
    assert len(stream.validation) == 6 and stream.labels == ["cat", "dog"] and stream.is_stream
