"""Layers fitted one after the other, and what each costs; what is done is kept in a work folder."""

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from ..data.seeds import seed_of
from ..files import whole_file
from .candidates import (
    KINDS,
    FitSettings,
    Task,
    build_candidate,
    closed_forms,
    fit,
    fitted_parameters,
    output_error,
    set_parameters,
)
from .costs import mixer_costs
from .damage import Reference, measure_damage, sum_over_processes
from .layerwise import BATCH_SIZE, LayeredNetwork, layered
from .selection import Replacement
from .statistics import LayerSums, from_tensors


@dataclass
class Study:
    """What layers are fitted and measured with.

    Args:
        accelerator: its processes each have their own share of the images.
        network: the untouched network.
        tokens, held_out: images kept as tokens before its first layer, `(images, tokens, hidden_size)`.
        reference: its outputs on those held out.
        sums: of its layers, over all images and processes; those of other layers are made of the kept images.
        settings: of the fits.
        folder: where fitted layers are kept.
        report: called with what is done and how many steps of how many, for a progress bar.
    """

    accelerator: Accelerator
    network: LayeredNetwork
    tokens: torch.Tensor
    held_out: torch.Tensor
    reference: Reference
    sums: dict[int, LayerSums]
    settings: FitSettings
    folder: Path
    report: Callable[[str, int, int], None] = lambda what, done, total: None


@dataclass
class Fitted:
    """A mixer in the place of a layer's attention, and its figures, which are those of `measure_damage` and more."""

    mixer: nn.Module
    figures: dict[str, Any]


@dataclass
class Place:
    """What a layer gets on the kept images, in the network with the replacements before it and in the untouched one."""

    layer: int
    tokens: torch.Tensor
    untouched_tokens: torch.Tensor

    @property
    def is_untouched(self) -> bool:
        return self.tokens is self.untouched_tokens


def measure_candidates(study: Study, layers: Sequence[int], kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Return the figures of every layer and kind, each replaced alone."""
    network, candidates = study.network, []
    tokens, held_out = study.tokens, study.held_out
    for layer in range(max(layers) + 1):
        place = Place(layer, tokens, tokens)
        for kind in kinds if layer in layers else ():
            fitted = fit_layer(study, network, place, held_out, [Replacement(layer, kind)])
            candidates.append(fitted.figures)
        if layer < max(layers):
            tokens, held_out = (network.run_layer(layer, images) for images in (tokens, held_out))
    return candidates


def replace_layers(study: Study, replacements: Sequence[Replacement]) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Return the network with its layers replaced, front to back, each fitted to what the layers before it now give.

    Returns:
        The network, whose configuration is still that of the untouched one, and the figures of each replacement, with
        those of the network up to it.
    """
    replacements = sorted(replacements)
    kinds = dict(replacements)
    network = layered(copy.deepcopy(study.network.model), study.accelerator)
    tokens = untouched = study.tokens
    held_out, figures = study.held_out, []
    for layer in range(max(kinds) + 1):
        if layer in kinds:
            done = [replacement for replacement in replacements if replacement.layer <= layer]
            fitted = fit_layer(study, network, Place(layer, tokens, untouched), held_out, done)
            network.layers[layer].mixer = fitted.mixer
            figures.append(fitted.figures)
        if layer < max(kinds):
            held_out = network.run_layer(layer, held_out)
            is_untouched = tokens is untouched and layer not in kinds
            untouched = study.network.run_layer(layer, untouched)
            tokens = untouched if is_untouched else network.run_layer(layer, tokens)
    return network.model, figures


def fit_layer(
    study: Study, network: LayeredNetwork, place: Place, held_out: torch.Tensor, replacements: Sequence[Replacement]
) -> Fitted:
    """Return a fitted mixer for a layer, from the work folder if it is there.

    Args:
        study: what it is fitted with.
        network: with the layers before it replaced, and itself not yet.
        place: the layer and what it gets.
        held_out: tokens before the layer, in this network.
        replacements: those of this network, this layer's last.
    """
    layer, kind = replacements[-1]
    attention = study.network.layers[layer].mixer
    candidate = build_candidate(attention, kind)
    file = study.folder / f"{name_of(replacements)}.safetensors"
    if file.is_file():
        return load_fitted(file, candidate)
    inputs = network.mixer_inputs(layer, place.tokens)
    untouched = inputs if place.is_untouched else study.network.mixer_inputs(layer, place.untouched_tokens)
    targets = study.network.added_by_mixer(layer, untouched)
    spread = channel_deviations(study.accelerator, targets)
    if not place.is_untouched:  # what earlier layers lost is made up for, as far as it can be
        targets = targets + place.untouched_tokens - place.tokens
    sums = study.sums.get(layer) if place.is_untouched else None
    sums = sums or sums_of(study, layer, inputs, untouched, KINDS[kind].mixer == "conv_static_key")
    accelerator, settings = study.accelerator, study.settings
    weights = (1 / spread.clamp(min=1e-6 * float(spread.max()) + 1e-12)).to(accelerator.device)
    task = Task(inputs, targets, lambda mixer, batch: network.added_by(mixer, layer, batch), weights)

    starts = closed_forms(kind, sums, attention)
    errors = {}
    for title, values in starts.items():
        set_parameters(candidate, values)
        errors[title] = output_error(accelerator, candidate, task)
    set_parameters(candidate, starts[min(errors, key=lambda title: errors[title])])

    if settings.steps:
        title, done = f"layer {layer}, {kind}", iter(range(1, settings.steps + 1))
        seeded = replace(settings, seed=seed_of(settings.seed, layer))
        fit(
            accelerator, candidate, attention, task, seeded,
            report=lambda: study.report(title, next(done), settings.steps),
        )  # fmt: skip
    attention_of_network, network.layers[layer].mixer = network.layers[layer].mixer, candidate
    damage = measure_damage(accelerator, network.outputs_from(layer, held_out), study.reference)
    network.layers[layer].mixer = attention_of_network
    seen, _ = network.seen_by_mixer(layer, inputs[:1].to(network.model.device))
    figures = {
        "layer": layer,
        "kind": kind,
        **damage,
        "output_error": output_error(accelerator, candidate, task),
        "output_errors_of_closed_forms": errors,
        **mixer_costs(candidate, attention, seen, network.mixer_grid(layer)),
    }
    fitted = Fitted(candidate.requires_grad_(False), figures)
    if accelerator.is_main_process:
        save_fitted(file, fitted, list(fitted_parameters(candidate, attention, settings)))
    return fitted


def sums_of(study: Study, layer: int, inputs: torch.Tensor, untouched: torch.Tensor, convolutional: bool) -> LayerSums:
    """Return the sums of a layer over the kept images of all processes."""
    device, total = study.network.model.device, None
    for some, other in zip(inputs.split(BATCH_SIZE), untouched.split(BATCH_SIZE)):
        teacher_inputs = None if untouched is inputs else other.to(device)
        batch = study.network.sums(layer, some.to(device), convolutional, teacher_inputs)
        total = batch if total is None else total + batch
    assert total is not None
    return reduce_sums(study.accelerator, total)


def channel_deviations(accelerator: Accelerator, tokens: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of each channel of the kept tokens of all processes, `(channels,)`."""
    count = torch.tensor([tokens[..., 0].numel()], dtype=torch.float64)
    first, second = torch.zeros(2, tokens.shape[-1], dtype=torch.float64)
    for batch in tokens.split(BATCH_SIZE):
        rows = batch.double().flatten(0, 1)
        first += rows.sum(0)
        second += rows.square().sum(0)
    sums = sum_over_processes(accelerator, torch.cat([count, first, second]))
    total, first, second = sums.split([1, len(first), len(second)])
    return (second / total - (first / total) ** 2).clamp(min=0).sqrt().float()


def reduce_sums(accelerator: Accelerator, sums: LayerSums) -> LayerSums:
    """Return the sums over all processes."""
    return from_tensors({name: sum_over_processes(accelerator, one) for name, one in sums.to_tensors().items()})


# What is kept


def name_of(replacements: Sequence[Replacement]) -> str:
    """Return the name of a fitted layer: the layer and its kind, and what was replaced before it."""
    *before, (layer, kind) = replacements
    name = f"layer-{layer:02d}-{kind}"
    if not before:
        return name
    return f"{name}-after-{hashlib.sha256(repr([tuple(one) for one in before]).encode()).hexdigest()[:12]}"


def save_fitted(file: Path, fitted: Fitted, names: list[str]) -> None:
    """Write those parameters of a mixer that were fitted, and its figures as metadata."""
    state = fitted.mixer.state_dict()
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as partial:
        tensors = {name: state[name].cpu().contiguous() for name in names}
        save_file(tensors, partial, metadata={"figures": json.dumps(fitted.figures)})


def load_fitted(file: Path, candidate: nn.Module) -> Fitted:
    """Read what `save_fitted` wrote."""
    with safe_open(file, "pt") as opened:
        set_parameters(candidate, {name: opened.get_tensor(name) for name in opened.offset_keys()})
        figures = json.loads(opened.metadata()["figures"])
    return Fitted(candidate.requires_grad_(False), figures)
