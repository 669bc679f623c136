"""Labels, features, masks or objects of image files, from the options of `sk-transformers predict` to a table."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging as transformers_logging

from ..data.decoding import UnreadableImage, decode
from ..data.fingerprint import digest
from ..data.listing import list_folder
from ..data.loaders import leave_interrupts, stack_filled
from ..data.objects import coco_masks
from ..data.transforms import detection_inputs, eval_transform
from ..devices import use_all_cores
from ..errors import first_line
from ..files import check_free
from ..hub.graph_runtimes import load_graph_classifier
from ..image_processing import without_resizing
from ..models.detection import find_instances
from ..pretrained import (
    class_names,
    class_probabilities,
    load_base_model,
    load_classifier,
    load_detector,
    load_segmenter,
)
from .mask_files import largest_classes, mask_names, predict_mask, save_mask
from .object_files import describe_objects, write_coco
from .options import PredictionOptions
from .overlays import draw_classes, draw_objects, save_picture, text_size, to_picture, to_pixels, with_legend
from .prediction_table import CHUNK, PredictionTable
from .sliding_window import SlidingWindow, logits_of_image, sliding_window

Row = dict[str, Any]


class Opened(NamedTuple):
    """An image as a model takes it, `(channels, height, width)`, its own `(height, width)`, its file's position, for a
    detector `pixel_mask`, `(height, width)`, and where it is to be drawn on, itself.
    """

    pixel_values: torch.Tensor
    size: tuple[int, int]
    position: int
    pixel_mask: torch.Tensor | None = None
    image: Image.Image | None = None


Answer = Callable[[nn.Module, torch.Tensor, list[Opened]], list[Row]]  # of a batch of images


class Summary(NamedTuple):
    """What a prediction came to: files in the table, and how many of them are unreadable."""

    files: int
    unreadable: int


def predict_files(model: str, inputs: Sequence[str], output: str, options: PredictionOptions) -> Summary | None:
    """Write a table with a row for each image file: its likeliest classes, its features, or its largest classes and
    the file of its mask.

    A run that was stopped goes on where it was, with any number of processes.

    Args:
        model: a repo folder, a Hub id or the name of a trained network of the zoo.
        inputs: files, and folders of which every file is taken.
        output: the table, `.csv`, `.jsonl` or `.parquet`, or of objects `.json`; it must not exist.
        options: what is written, and how it is computed.

    Returns:
        None on processes that are not the main one.

    Raises:
        ImportError: if the runtime that is asked for is not installed.
        ValueError: if the model cannot be loaded, or the table or what a stopped run left of it does not fit.
        FileNotFoundError: if an input does not exist.
        FileExistsError: if the table exists.
    """
    check_free(Path(output))
    files = list_files(inputs)
    table = PredictionTable(Path(output), job_of(model, files, options))
    table.check()
    transformers_logging.disable_progress_bar()
    accelerator = Accelerator(mixed_precision=options.mixed_precision)
    use_all_cores(accelerator)
    answer = choose_answer(files, options)
    network, processor = choose_loader(options)(model)
    processor = processor if options.sliding_window is None else without_resizing(processor)
    network = network.eval().to(accelerator.device)

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        table.start()
    missing = table.missing_chunks(len(files))
    accelerator.wait_for_everyone()
    own = missing[accelerator.process_index :: accelerator.num_processes]
    batches = [batch for chunk in own for batch in batches_of(chunk, len(files), options.batch_size)]
    loader = DataLoader(
        ImageFiles(
            files,
            detection_inputs(processor) if options.objects else eval_transform(processor),
            keep=options.overlays is not None,
        ),
        batch_sampler=batches,
        num_workers=options.num_workers,
        collate_fn=list,
        worker_init_fn=leave_interrupts,
    )
    rows: list[Row] = []
    with progress_bar(accelerator, sum(map(len, batches))) as bar:
        task = bar.add_task("images", total=sum(map(len, batches)))
        for batch, examples in zip(batches, loader):
            with torch.inference_mode(), accelerator.autocast():
                rows += answer_batch(network, examples, answer, accelerator.device)
            for row, index in zip(rows[-len(batch) :], batch):
                row["file"] = files[index].name
            if (batch[-1] + 1) % CHUNK == 0 or batch[-1] + 1 == len(files):
                table.write_chunk(batch[-1] // CHUNK, rows)
                rows = []
            bar.advance(task, len(batch))
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return None
    config: Any = network.config
    write = partial(write_coco, classes=class_names(config)) if options.objects else None
    return Summary(len(files), table.finish(write))


class Listed(NamedTuple):
    """A file, by the name that it has in the table; `fault` says why it is not an image, where that is known."""

    name: str
    path: str
    fault: str | None = None


def list_files(inputs: Sequence[str]) -> list[Listed]:
    """Return the files in the order of the inputs and, within a folder, of names, with those that are not images.

    Hidden and system files are passed over, as in training.
    """
    listed: dict[str, Listed] = {}
    for given in inputs:
        if not Path(given).exists():
            raise FileNotFoundError(f"{given} does not exist: expected image files, or folders of them.")
        for file in walk(given) if Path(given).is_dir() else [Listed(printable(given), given)]:
            listed.setdefault(file.name, file)
    if not listed:
        raise ValueError(f"{', '.join(inputs)} holds no files: expected images.")
    return list(listed.values())


def walk(given: str) -> Iterator[Listed]:
    """Yield the files below a folder."""
    for folder in list_folder(given).walk():
        files = [Listed(printable(image.path), image.path) for image in folder.images]
        files += [
            Listed(path := f"{given}/{file.name}", path, file.reason) for file in folder.other_files if file.fault
        ]
        yield from sorted(files)


def batches_of(chunk: int, num_files: int, batch_size: int) -> list[list[int]]:
    """Return the positions of a chunk's files in batches."""
    positions = range(chunk * CHUNK, min((chunk + 1) * CHUNK, num_files))
    return [list(positions[start : start + batch_size]) for start in range(0, len(positions), batch_size)]


class ImageFiles(Dataset):
    """Images as a model takes them, also as they are to `keep`, or as a text the reason why one is unreadable."""

    def __init__(self, files: list[Listed], transform: Callable[..., Any], keep: bool = False) -> None:
        self.files, self.transform, self.keep = files, transform, keep

    def __getitem__(self, index: int) -> Opened | str:
        listed = self.files[index]
        if listed.fault is not None:
            return listed.fault
        try:
            with open(listed.path, "rb") as file:
                image = decode(file)
        except (UnreadableImage, OSError) as error:
            return first_line(error)
        made = self.transform(image)
        inputs = made if isinstance(made, dict) else {"pixel_values": made}
        kept = image if self.keep else None
        return Opened(size=(image.height, image.width), position=index, image=kept, **inputs)


def answer_batch(network: nn.Module, examples: list[Opened | str], answer: Answer, device: torch.device) -> list[Row]:
    """Return a row for each example, without the file's name."""
    readable = [example for example in examples if isinstance(example, Opened)]
    answers = iter(())
    if readable:
        answers = iter(answer(network, stack_filled([image.pixel_values for image in readable]).to(device), readable))
    return [
        {**next(answers), "error": None} if isinstance(example, Opened) else {"error": example} for example in examples
    ]


def choose_loader(options: PredictionOptions) -> Callable[[str], tuple[nn.Module, BaseImageProcessor]]:
    """Return what loads the kind of model that is asked."""
    if options.runtime != "torch":
        return partial(load_graph_classifier, runtime=options.runtime, quantized=options.quantized)
    if options.embeddings:
        return load_base_model
    if options.objects:
        return load_detector
    return load_classifier if options.masks is None else load_segmenter


def choose_answer(files: list[Listed], options: PredictionOptions) -> Answer:
    """Return what makes rows of batches, and writes masks and overlays if these are asked for.

    Raises:
        ValueError: if two of them would be one file, or one an image that is read.
    """
    if options.embeddings:
        return lambda network, pixel_values, images: features(network, pixel_values)
    overlays = None if options.overlays is None else places("--overlays", options.overlays, files)
    if options.objects:
        coco_masks()  # or its absence would show after the first batch
        return partial(write_objects, min_score=options.min_score, overlays=overlays)
    if options.masks is None:
        return lambda network, pixel_values, images: top_classes(network, pixel_values, options.top_k)
    masks = places("--masks", options.masks, files)
    both = {os.path.realpath(one) for one in masks} & {os.path.realpath(one) for one in overlays or []}
    if both:
        raise ValueError(f"--masks and --overlays would both be written to {min(both)}: choose another folder for one.")
    window = None
    if options.sliding_window is not None:
        window = sliding_window(options.sliding_window, options.window_stride, options.batch_size)
    return partial(write_masks, masks=masks, top_k=options.top_k, window=window, overlays=overlays)


def places(option: str, folder: str, files: list[Listed]) -> list[Path]:
    """Return the file in a folder for each image file; ValueError if two are one, or one is an image."""
    images = {os.path.realpath(file.path) for file in files}
    found = [Path(folder, printable(name)) for name in mask_names([file.path for file in files])]
    for file in found:
        if os.path.realpath(file) in images:
            raise ValueError(f"{option} {folder} would write over {file}, an image to predict: choose another folder.")
    return found


def top_classes(network: nn.Module, pixel_values: torch.Tensor, top_k: int) -> list[Row]:
    """Return the `top_k` likeliest classes of each image with their scores, as the pipeline and the handler do."""
    config: Any = network.config
    logits = network(pixel_values=pixel_values).logits.float()
    best = class_probabilities(logits, config).topk(min(top_k, logits.shape[-1]))
    rows = []
    for labels, scores in zip(best.indices.tolist(), best.values.tolist()):
        row: Row = {}
        for rank, (label, score) in enumerate(zip(labels, scores), 1):
            row[f"label_{rank}"], row[f"score_{rank}"] = config.id2label[label], float(f"{score:.6g}")
        rows.append(row)
    return rows


def features(network: nn.Module, pixel_values: torch.Tensor) -> list[Row]:
    """Return the pooled features of each image."""
    pooled = network(pixel_values=pixel_values).pooler_output.float().flatten(1)
    return [{"embedding": values} for values in pooled.cpu().numpy()]


def write_masks(
    network: nn.Module,
    pixel_values: torch.Tensor,
    images: list[Opened],
    masks: list[Path],
    top_k: int,
    window: SlidingWindow | None = None,
    overlays: list[Path] | None = None,
) -> list[Row]:
    """Write the mask of each image, as large as the image, and return its file and the classes with the most pixels.

    Args:
        network: a segmenter.
        pixel_values: `(batch, channels, height, width)`.
        images: of the batch.
        masks: the mask's file of each image file.
        top_k: how many classes.
        window: of which logits are averaged; the whole image at once when None.
        overlays: the file of each image file for the image under its mask, with the names of the classes below.
    """
    config: Any = network.config
    rows = []
    for logits, image in zip(logits_of_images(network, pixel_values, images, window), images):
        mask, file = predict_mask(logits, image.size), masks[image.position]
        save_mask(mask, file)
        if overlays is not None and image.image is not None:
            under_mask = to_picture(draw_classes(to_pixels(image.image), mask))
            names, size = class_names(config), text_size(*under_mask.size)
            save_picture(with_legend(under_mask, [mask], names, size), overlays[image.position])
        rows.append({"mask": str(file), **largest_classes(mask, config.id2label, top_k)})
    return rows


def logits_of_images(
    network: nn.Module, pixel_values: torch.Tensor, images: list[Opened], window: SlidingWindow | None
) -> Iterable[torch.Tensor]:
    """Return a segmenter's logits `(classes, height, width)` of each image."""
    if window is None:
        return network(pixel_values=pixel_values).logits.float()
    alone = (image.pixel_values.to(pixel_values.device) for image in images)  # without what fills the batch
    return (logits_of_image(network, one, window) for one in alone)


def write_objects(
    network: nn.Module,
    pixel_values: torch.Tensor,
    images: list[Opened],
    min_score: float,
    overlays: list[Path] | None = None,
) -> list[Row]:
    """Return the objects of each image, of at least this score, as JSON.

    Args:
        network: a detector.
        pixel_values: `(batch, channels, height, width)`.
        images: of the batch.
        min_score: of the objects.
        overlays: the file of each image file for the image with its objects.
    """
    config: Any = network.config
    masks = [image.pixel_mask for image in images if image.pixel_mask is not None]
    pixel_mask = stack_filled(masks).to(pixel_values.device) if masks else None
    sizes = [image.size for image in images]
    found = find_instances(network(pixel_values=pixel_values, pixel_mask=pixel_mask), min_score, sizes)
    for objects, image in zip(found, images):
        if overlays is not None and image.image is not None:
            drawn = draw_objects(to_pixels(image.image), objects, class_names(config))
            save_picture(to_picture(drawn), overlays[image.position])
    return [{"objects": describe_objects(one, size)} for one, size in zip(found, sizes)]


def job_of(model: str, files: list[Listed], options: PredictionOptions) -> dict[str, Any]:
    """Return what rows of two runs must have in common to stand in one table. No file is read."""
    weights = map(str, sorted(Path(model).glob("*.safetensors" if options.runtime == "torch" else "onnx/*.onnx")))
    return {
        "model": model,
        "weights": digest(describe(path) for path in weights),
        "files": digest(f"{file.name} {file.fault or describe(file.path)}" for file in files),
        "embeddings": options.embeddings,
        "masks": options.masks,
        "objects": options.objects,
        "overlays": options.overlays,
        "sliding_window": options.sliding_window,
        "window_stride": options.window_stride,
        "min_score": options.min_score,
        "top_k": options.top_k,
        "mixed_precision": options.mixed_precision,
        "runtime": options.runtime,
        "quantized": options.quantized,
    }


def describe(path: str) -> str:
    """Return what changes with a file's content."""
    status = os.stat(path)
    return f"{os.path.basename(printable(path))} {status.st_size} {status.st_mtime_ns}"


def printable(path: str) -> str:
    """Return a path as text that any file can hold; bytes that are not UTF-8 are shown as numbers."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def progress_bar(accelerator: Accelerator, total: int) -> Progress:
    """Return a bar of the main process's share."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not accelerator.is_main_process or total == 0)
