"""Tables of docs/pretrained.md, from what calibrations of trained networks left: `docs/calibration-*.json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..hub.cards.card import millions, multiply_adds
from ..provenance import without_local_folder
from . import probe, runtimes

SHORT = {
    "static_map": "static map",
    "static_key": "static key",
    "static_key+bias": "key and bias",
    "conv_static_key": "conv key",
    "conv_static_key+bias": "conv key and bias",
}


def gather(calibrations: dict[str, dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
    """Return what pages say of calibrations, each by a name, and other figures beside it.

    Args:
        calibrations: what their `calibration.json` holds.
        more: figures of `runtimes` and `probe`, and evaluations.
    """
    kept = ("images", "image_size", "candidates", "replaced", "distilled", "before", "after", "provenance")
    return {"calibrations": {name: {key: one[key] for key in kept} for name, one in calibrations.items()}, **more}


def read_folder(folder: str) -> dict[str, Any]:
    """Return the `calibration.json` of a calibrated network's folder."""
    file = Path(folder, "calibration.json")
    if not file.is_file():
        raise ValueError(f"{folder} has no calibration.json: expected a folder that sk-transformers calibrate wrote.")
    return json.loads(file.read_text(encoding="utf-8"))


def read_evaluation(folder: str) -> dict[str, Any]:
    """Return the accuracy in the `evaluation.json` of an evaluation's folder, and where it comes from."""
    file = Path(folder, "evaluation.json")
    if not file.is_file():
        raise ValueError(f"{folder} has no evaluation.json: expected a folder that sk-transformers evaluate wrote.")
    figures = json.loads(file.read_text(encoding="utf-8"))
    kept = {key: figures[key] for key in ("split", "images", "top1", "command", "commit", "hardware")}
    return {"dataset": without_local_folder(figures["dataset"]), **kept}


def to_tables(figures: dict[str, Any]) -> dict[str, str]:
    """Return the tables by the names of the blocks that they stand in."""
    tables = {}
    for name, calibration in figures["calibrations"].items():
        tables[f"calibration {name}"] = to_sentence(calibration)
        tables[f"calibration {name} replaced"] = to_replaced_table(calibration)
        tables[f"calibration {name} whole"] = to_whole_table(calibration)
        if calibration["candidates"]:
            tables[f"calibration {name} layers"] = to_layers_table(calibration["candidates"])
            tables[f"calibration {name} costs"] = to_costs_table(calibration["candidates"])
    for name, measured in figures["runtimes"].items():
        tables[f"runtimes {name}"] = runtimes.to_text(measured)
    if "evaluations" in figures:
        tables["calibration accuracies"] = to_accuracies_table(figures["evaluations"])
    if "probe" in figures:
        tables["probe"] = probe.to_table([probe.Probe(**one) for one in figures["probe"]["probes"]])
    return tables


def to_layers_table(candidates: Sequence[dict[str, Any]]) -> str:
    """Return a row for each layer and a column for each kind: error and cosine, each layer replaced alone."""
    kinds = [kind for kind in SHORT if any(one["kind"] == kind for one in candidates)]
    lines = [f"| layer | {' | '.join(SHORT[kind] for kind in kinds)} |", f"| ---: |{' --- |' * len(kinds)}"]
    for layer in sorted({one["layer"] for one in candidates}):
        of_kind = {one["kind"]: one for one in candidates if one["layer"] == layer}
        best = min(of_kind.values(), key=lambda one: one["error"])
        cells = []
        for kind in kinds:
            text = f"{of_kind[kind]['error']:.3f} / {of_kind[kind]['cosine']:.3f}" if kind in of_kind else ""
            cells.append(f"**{text}**" if of_kind.get(kind) is best else text)
        lines.append(f"| {layer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def to_replaced_table(calibration: dict[str, Any]) -> str:
    """Return the error, and accuracy if known, as layers are replaced one by one, and after training end to end."""
    titles = [f"{'' if number == 0 else '+ '}{one['layer']}" for number, one in enumerate(calibration["replaced"])]
    errors = list(calibration["replaced"])
    if calibration["distilled"]:
        titles.append(f"{calibration['distilled'][-1]['step']} steps end to end")
        errors.append(calibration["after"])
    formats = {"error": ".3f", "cosine": ".3f"} | ({"top1": ".1%"} if "top1" in errors[0] else {})
    return "\n".join(
        [
            f"| layers | {' | '.join(titles)} |",
            f"| --- |{' ---: |' * len(titles)}",
            *(f"| {name} | {' | '.join(f'{one[name]:{form}}' for one in errors)} |" for name, form in formats.items()),
        ]
    )


def to_accuracies_table(evaluations: dict[str, dict[str, Any]]) -> str:
    """Return the accuracy of networks, which have been evaluated on the same images, in the order they are given."""
    measured_on = {f"{one['dataset']}, {one['split']}, {one['images']} images" for one in evaluations.values()}
    if len(measured_on) > 1:
        raise ValueError(f"evaluations are of {' and of '.join(sorted(measured_on))}: expected the same images.")
    lines = [f"| network | top-1 on {measured_on.pop()} |", "| --- | ---: |"]
    return "\n".join([*lines, *(f"| {name} | {one['top1']:.2%} |" for name, one in evaluations.items())])


def to_whole_table(calibration: dict[str, Any]) -> str:
    """Return what the network costs before and after."""
    rows = {
        "multiply-adds": ("multiply_adds", multiply_adds),
        "parameters": ("parameters", millions),
        "images a second, in turns in batches of 8, eager": ("images_per_second", lambda value: f"{value:.1f}"),
    }
    before, after = calibration["before"], calibration["after"]
    lines = ["| | before | after |", "| --- | ---: | ---: |"]
    return "\n".join(
        [*lines, *(f"| {title} | {text(before[key])} | {text(after[key])} |" for title, (key, text) in rows.items())]
    )


def to_sentence(calibration: dict[str, Any]) -> str:
    """Return where the figures come from: command, images, commit and machine."""
    images, provenance = calibration["images"], calibration["provenance"]
    return (
        f"`{provenance['command']}`: {images['calibration']} images calibrate, {images['held_out']} others measure;"
        f" commit {provenance['commit'][:7]}, {provenance['hardware']}."
    )


def to_costs_table(candidates: Sequence[dict[str, Any]]) -> str:
    """Return what a layer's mixer costs, by kind: multiply-adds, parameters and time beside attention's."""
    kinds = [kind for kind in SHORT if any(one["kind"] == kind for one in candidates)]
    lines = ["| in place of attention | multiply-adds | saved | parameters saved | time, of attention's |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for kind in kinds:
        rows = [one for one in candidates if one["kind"] == kind]
        times = sorted(one["milliseconds"] / one["attention_milliseconds"] for one in rows)
        one = rows[0]
        lines.append(
            f"| {SHORT[kind]} | {multiply_adds(one['macs'])} | {multiply_adds(one['saved_macs'])} |"
            f" {one['saved_parameters']:,} | {times[len(times) // 2]:.2f} |"
        )
    return "\n".join(lines)
