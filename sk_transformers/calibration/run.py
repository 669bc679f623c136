"""A calibration, from the options to the repo folder."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging as transformers_logging

from ..complexity import count_macs
from ..data.image_data import ImageData
from ..data.options import DataOptions
from ..data.unlabeled import from_memory
from ..files import check_free, whole_file, write_json
from ..hub.export import export
from ..models.configuration_checks import size_pair
from ..provenance import provenance
from ..registration import auto_class_of
from ..training.setup import make_accelerator
from .candidates import BIAS, KINDS, FitSettings
from .costs import TIMED_IMAGES, images_per_second
from .damage import make_reference, measure_damage
from .distill import distill, outputs_on, train_options
from .images import check_enough, divide, load_images, loader_of
from .layerwise import layered
from .options import KIND_NAMES, DistillationOptions, FitOptions, LayerOptions
from .report import PLOT, Calibration, calibration_card, plot_damage
from .selection import Replacement, greedy_order, parse_layers
from .source import Source, load_source, mixers_of_layers, source_of
from .statistics import LayerSums, from_tensors
from .study import Study, measure_candidates, reduce_sums, replace_layers

MAX_ERROR = 0.1  # where the options name neither layers nor a limit


def calibrate(
    model: str | PreTrainedModel,
    images: str | Sequence[Image.Image],
    output_dir: str | Path,
    *,
    image_processor: BaseImageProcessor | None = None,
    work_dir: str | Path | None = None,
    license: str | None = None,
    **settings: Any,
) -> Calibration:
    """Replace the attention of some layers of a trained Vision Transformer or Swin by static keys or maps.

    Args:
        model: the name of a trained network of the zoo, a folder or Hub id of this package's networks or of what
            `sk-transformers convert` takes, or an SKViT or SKSwin.
        images: a data set by its name, as `--dataset` takes it, or images in memory; labels are not needed.
        output_dir: the repo folder to write; it must not exist, or be empty.
        image_processor: of a model that is no name.
        work_dir: where finished layers are kept, so that a run that was stopped goes on, `OUTPUT_DIR-work` when None.
        license: of the weights, as the Hub names it, where the source does not say.
        settings: options by their names: those of `LayerOptions`, `FitOptions`, `DistillationOptions` and
            `DataOptions`, such as `layers="1-4"`, `mixer=["static_map"]` or `distill_steps=250`.

    Raises:
        ValueError: if the network has no attention, a layer or kind does not exist, images are too few or cannot be
            read, or the work folder holds another calibration.
        FileExistsError: if `output_dir` holds something already.
    """
    groups = {group: take(group, settings) for group in (LayerOptions, FitOptions, DistillationOptions)}
    dataset = images if isinstance(images, str) else "images in memory"
    data_options = DataOptions(dataset, **{name: settings.pop(name) for name in names_of(DataOptions) & set(settings)})
    if settings:
        raise ValueError(f"{min(settings)} is not an option of a calibration: see sk-transformers calibrate --help.")
    return run_calibration(
        model, images, Path(output_dir), Path(work_dir or f"{output_dir}-work"), data_options,
        groups[LayerOptions], groups[FitOptions], groups[DistillationOptions], image_processor, license,
    )  # fmt: skip


def names_of(group: Any) -> set[str]:
    return {member.name for member in fields(group)}


def take(group: Any, settings: dict[str, Any]) -> Any:
    """Return a group of options, whose values are taken out of the settings."""
    return group(**{name: settings.pop(name) for name in names_of(group) & set(settings)})


def run_calibration(
    model: str | PreTrainedModel,
    images: str | Sequence[Image.Image],
    folder: Path,
    work: Path,
    data_options: DataOptions,
    layer_options: LayerOptions,
    fit_options: FitOptions,
    distillation: DistillationOptions,
    image_processor: BaseImageProcessor | None = None,
    license: str | None = None,
) -> Calibration:
    """Calibrate a network as the options say; see `calibrate`."""
    check_free(folder)
    transformers_logging.disable_progress_bar()
    if isinstance(model, str):
        source = load_source(model, work / "source", fit_options.image_size, license)
    else:
        source = source_of(model, image_processor, fit_options.image_size)
    kinds = chosen_kinds(layer_options)
    layers = chosen_layers(layer_options, source)
    if isinstance(images, str):
        data, label_map = load_images(data_options, fit_options, source)
    else:
        data, label_map = divide(from_memory(images), fit_options), None
    check_enough(data, kinds, source)
    training = train_options(source, data_options, distillation, fit_options.seed, work / "distillation")
    accelerator = make_accelerator(training)
    source.model.to(accelerator.device)
    if accelerator.is_main_process:
        work.mkdir(parents=True, exist_ok=True)
        check_same_work(work, source, data, {**asdict(fit_options), "mixed_precision": distillation.mixed_precision})
    accelerator.wait_for_everyone()
    with progress(accelerator) as report:
        report(data.account, 0, 1)
        by_hand = layer_options.layers is not None
        study = prepare(accelerator, source, data, label_map, data_options, fit_options, kinds, layers, work, report)
        candidates = [] if by_hand else measure_candidates(study, layers, kinds)
        if by_hand:
            replacements = [Replacement(layer, kinds[0]) for layer in layers]
            network, replaced = replace_layers(study, replacements)
        else:
            network, replaced = replace_greedily(study, candidates, layer_options)
    network, new = with_config(network, replaced)
    damage = {name: replaced[-1][name] for name in ("error", "cosine", "agreement", "top1") if name in replaced[-1]}
    history: list[dict[str, Any]] = []
    if distillation.distill_steps:
        held_out = loader_of(
            data.validation, source, data_options, accelerator.process_index, accelerator.num_processes
        )
        network, history = distill(
            accelerator, source, network, new, data, held_out, study.reference, distillation, training
        )
        network.eval()
        damage = measure_damage(accelerator, outputs_on(network, network, held_out), study.reference)
    return finish(accelerator, source, network, data, label_map, study, candidates, replaced, history, damage, folder)


def chosen_kinds(options: LayerOptions) -> list[str]:
    """Return the kinds that may take the place of attention; ValueError if one is none."""
    kinds = options.mixer or (["static_key+bias"] if options.layers is not None else list(KIND_NAMES))
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} cannot take the place of attention: expected one of {', '.join(KINDS)}.")
    return kinds


def chosen_layers(options: LayerOptions, source: Source) -> list[int]:
    """Return the layers that may lose their attention, or those that were named."""
    mixers = [mixer for mixer, _ in mixers_of_layers(source.model.config)]
    attention = [layer for layer, mixer in enumerate(mixers) if mixer == "attention"]
    return attention if options.layers is None else parse_layers(options.layers, attention, len(mixers))


def check_same_work(work: Path, source: Source, data: ImageData, options: dict[str, Any]) -> None:
    """Note what the work folder is for, or raise ValueError if it is for something else."""
    now = {"model": source.name, "data": data.fingerprint, "options": options}
    file = work / "calibration-of.json"
    if not file.is_file():
        write_json(now, file)
        return
    before = json.loads(file.read_text())
    if before != json.loads(json.dumps(now)):
        changed = [name for name in now if before.get(name) != json.loads(json.dumps(now[name]))]
        raise ValueError(
            f"{work} holds layers that were fitted with another {' and '.join(changed)}: choose another --work_dir, or"
            " remove it."
        )


@contextmanager
def progress(accelerator: Accelerator) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows what is done, and how many steps of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not accelerator.is_main_process) as bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bar.remove_task(task)
                tasks.clear()
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield report


def prepare(
    accelerator: Accelerator,
    source: Source,
    data: ImageData,
    label_map: torch.Tensor | None,
    data_options: DataOptions,
    fit: FitOptions,
    kinds: list[str],
    layers: list[int],
    work: Path,
    report: Callable[[str, int, int], None],
) -> Study:
    """Run the network over the images once: gather the sums of its layers, and keep images as tokens."""
    network = layered(source.model, accelerator)
    process, processes = accelerator.process_index, accelerator.num_processes
    bytes_of_image = 4 * max(network.numbers_of_tokens)
    # What a layer gets in either network, what its mixer gets and should give.
    keep = max(1, int(fit.kept_memory * 2**30 / bytes_of_image / 4))
    convolutional = any(KINDS[kind].mixer == "conv_static_key" for kind in kinds)
    file = work / "sums.safetensors"
    kept_sums = load_sums(file) if file.is_file() else {}
    missing = [
        layer
        for layer in layers
        if layer not in kept_sums or (convolutional and not has_neighborhoods(kept_sums[layer]))
    ]

    def read(
        images: Any, what: str, limit: int, of_layers: list[int], mirrored: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, dict]:
        loader = loader_of(images, source, data_options, process, processes)

        def batches() -> Iterator[dict[str, torch.Tensor]]:
            for number, batch in enumerate(loader, 1):
                yield batch
                report(what, number, len(loader))

        return network.read(batches(), limit, of_layers, convolutional, mirrored)

    tokens, _, sums = read(data.train, "reading images", keep, missing, fit.mirrored)
    sums = kept_sums | {layer: reduce_sums(accelerator, one) for layer, one in sums.items()}
    if accelerator.is_main_process and missing:
        save_sums(sums, file)
    held_out, labels, _ = read(data.validation, "reading images held out", len(data.validation), [])
    labels = None if label_map is None else label_map[labels]
    reference = make_reference(accelerator, network, held_out, labels)
    settings = FitSettings(
        fit.fit_steps, fit.fit_batch_size, fit.fit_learning_rate, fit.projection_learning_rate, fit.seed
    )
    return Study(accelerator, network, tokens, held_out, reference, sums, settings, work / "layers", report)


def has_neighborhoods(sums: LayerSums) -> bool:
    return "neighborhood" in sums.moments


def save_sums(sums: dict[int, LayerSums], file: Path) -> None:
    tensors = {f"{layer}/{name}": one for layer, of in sums.items() for name, one in of.to_tensors().items()}
    with whole_file(file) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)


def load_sums(file: Path) -> dict[int, LayerSums]:
    """Read what `save_sums` wrote."""
    layers: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(file).items():
        layer, _, rest = name.partition("/")
        layers.setdefault(int(layer), {})[rest] = tensor
    return {layer: from_tensors(tensors) for layer, tensors in layers.items()}


def replace_greedily(
    study: Study, candidates: list[dict[str, Any]], options: LayerOptions
) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Return the network with layers replaced in the order of their damage for what they save, until a limit.

    With each layer that is added, those behind it are fitted anew.
    """
    max_error = options.max_error or (None if options.target_macs else MAX_ERROR)
    network = study.network.model
    macs = count_macs(network.config, auto_class=auto_class_of(type(network).__name__))
    chosen: list[Replacement] = []
    best = None
    for replacement in greedy_order(candidates):
        network, figures = replace_layers(study, [*chosen, replacement])
        if max_error is not None and figures[-1]["error"] > max_error:
            break
        chosen.append(replacement)
        best = network, figures
        if options.target_macs and macs - sum(one["saved_macs"] for one in figures) <= options.target_macs:
            break
    if best is None:
        raise ValueError(
            f"--max_error {max_error}: no replacement that saves multiply-adds stays below it;"
            f" {least_damage(candidates)}."
        )
    return best


def least_damage(candidates: list[dict[str, Any]]) -> str:
    """Return what a sentence says of the candidate of the least error among those that save multiply-adds."""
    useful = [one for one in candidates if one["saved_macs"] > 0]
    if not useful:
        return "none saves any: take other kinds with --mixer"
    best = min(useful, key=lambda one: one["error"])
    return f"{best['kind']} in layer {best['layer']} costs least, an error of {best['error']:.3g}: raise it above that"


def with_config(network: PreTrainedModel, replaced: list[dict[str, Any]]) -> tuple[PreTrainedModel, list[str]]:
    """Return the network under a configuration that says what was replaced, and the names of its new parameters."""
    config: Any = network.config
    mixers, biases = (list(values) for values in zip(*mixers_of_layers(config)))
    for one in replaced:
        kind = KINDS[one["kind"]]
        mixers[one["layer"]], biases[one["layer"]] = kind.mixer, "full" if kind.bias else None
    name_of_mixers = "token_mixers" if config.has_stages else "token_mixer"
    changed = type(config).from_dict({**config.to_dict(), name_of_mixers: mixers, "attention_bias": biases})
    with torch.device(network.device):
        calibrated = type(network)(changed)
    calibrated.load_state_dict(network.state_dict())
    with torch.device("meta"):
        known = dict(type(network)(config).named_parameters())
    layers = [name for name, module in calibrated.named_modules() if hasattr(module, "mixer")]
    biases_of_replaced = {f"{layers[one['layer']]}.mixer.{BIAS}" for one in replaced}  # others than attention's own
    new = [name for name, _ in calibrated.named_parameters() if name not in known or name in biases_of_replaced]
    return calibrated.eval(), new


def finish(
    accelerator: Accelerator,
    source: Source,
    network: PreTrainedModel,
    data: ImageData,
    label_map: torch.Tensor | None,
    study: Study,
    candidates: list[dict[str, Any]],
    replaced: list[dict[str, Any]],
    history: list[dict[str, Any]],
    damage: dict[str, float],
    folder: Path,
) -> Calibration:
    """Measure the whole network and leave the repo folder."""
    before: dict[str, Any] = measure_damage(accelerator, study.network.outputs_from(0, study.held_out), study.reference)
    images = layered(source.model, accelerator).images(TIMED_IMAGES)
    speeds = images_per_second([source.model, network], images)
    figures = []
    for model, speed, own in ((source.model, speeds[0], before), (network, speeds[1], damage)):
        macs = count_macs(model.config, auto_class=auto_class_of(type(model).__name__))
        figures.append(
            {"multiply_adds": macs, "parameters": model.num_parameters(), "images_per_second": round(speed, 2), **own}
        )
    height, width = size_pair("image_size", source.model.config.image_size)
    calibration = Calibration(
        source=source.name if source.base_model else Path(source.name).name,
        license=source.license,
        images={
            "name": Path(data.name).name,
            "calibration": data.train_images,
            "held_out": len(data.validation),
            "labels": label_map is not None,
        },
        image_size=[height, width],
        candidates=candidates,
        replaced=replaced,
        distilled=history,
        before=figures[0],
        after=figures[1],
        provenance=provenance(),
        model=network.cpu(),
    )
    if accelerator.is_main_process:
        work = study.folder.parent
        plot_damage(calibration, work / PLOT)
        write_json(calibration.to_dict(), work / "calibration.json")
        card = calibration_card(calibration, folder.name, source.base_model)
        pictures = {PLOT: work / PLOT, "calibration.json": work / "calibration.json"}
        calibration.folder = export(network, source.processor, folder, card, pictures)
    accelerator.wait_for_everyone()
    return calibration
