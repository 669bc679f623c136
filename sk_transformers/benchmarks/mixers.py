"""Networks that differ in their token mixer, trained under one recipe with several seeds: the runs and their metrics.

A plan is data, a YAML file such as `scripts/comparisons/mixers.yaml`; its runs are those of `sk-transformers train`.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForImageClassification, PretrainedConfig

from ..complexity import count_macs, count_parameters
from ..errors import first_line
from ..files import write_json
from ..models.configuration_checks import size_pair
from ..provenance import provenance
from ..training.checkpoints import PREFIX
from ..training.command_line import parse_options, to_tokens
from ..training.loop import train
from ..training.options import TrainOptions
from ..zoo import create_config
from .measure import time_interleaved, training_work

RESULTS, PLAN = "results.json", "plan.json"
PLANS = Path(__file__).parents[2] / "scripts" / "comparisons"
PER_RUN = ("output_dir", "resume_from_checkpoint", "seed")  # options that runs of one network may differ in


@dataclass(frozen=True)
class Candidate:
    """One network of a comparison, within its family; `overrides` are fields of its configuration."""

    family: str
    mixer: str
    model: str
    overrides: dict[str, Any]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.family}-{self.mixer}"

    @property
    def config(self) -> PretrainedConfig:
        return create_config(self.model, **self.overrides)


@dataclass(frozen=True)
class Plan:
    """Networks, seeds, and the mixer that the others of a family are compared with."""

    networks: list[Candidate]
    seeds: list[int]
    baseline: str


def find_plan(name: str) -> Path:
    """Return a plan's file: one of this path, or of this name among those of the project."""
    file = Path(name) if Path(name).is_file() else PLANS / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(plan.stem for plan in PLANS.glob("*.yaml")))
        raise ValueError(f"--plan {name}: there is no such file, nor a plan of that name among {known}.")
    return file


def read_plan(file: Path) -> Plan:
    """Return the plan in a YAML file.

    The file has `options` of `sk-transformers train` for all runs; `seeds`; `baseline`, the mixer that the others are
    compared with; `parameter_tolerance`, the fraction by which parameters may differ from the baseline's; and
    `families`, each with a `model` of the zoo, fields of its configuration under `config`, `options` of its own, and
    `networks`: under each mixer's name the fields that set it apart.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        networks = [
            Candidate(
                family,
                mixer,
                shared["model"],
                {**shared.get("config", {}), **own},
                {**content["options"], **shared.get("options", {})},
            )
            for family, shared in content["families"].items()
            for mixer, own in shared["networks"].items()
        ]
        plan = Plan(networks, list(content["seeds"]), content["baseline"])
        tolerance = content["parameter_tolerance"]
    except (AttributeError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ValueError(
            f"{file} is not a valid plan of a comparison ({first_line(error)}): see scripts/comparisons/mixers.yaml."
        ) from error
    check_sizes(file, plan, tolerance)
    return plan


def check_sizes(file: Path, plan: Plan, tolerance: float) -> None:
    """Raise ValueError unless a family's networks have the baseline's number of parameters, within the tolerance."""
    for family in {network.family: None for network in plan.networks}:
        sizes = {n.mixer: count_parameters(n.config) for n in plan.networks if n.family == family}
        if plan.baseline not in sizes:
            raise ValueError(f"{file}: family {family!r} has no network {plan.baseline!r}, which is the baseline.")
        for mixer, size in sizes.items():
            if abs(size / sizes[plan.baseline] - 1) > tolerance:
                raise ValueError(
                    f"{file}: {family}-{mixer} has {size} parameters and the baseline {sizes[plan.baseline]}, expected"
                    f" within {tolerance:.0%}: change its width, or parameter_tolerance."
                )


def compare(plan: Plan, folder: Path, *, keep_weights: bool = False, timed_rounds: int = 0) -> dict[str, Any]:
    """Train every network with every seed, unless that is done already.

    A finished run is not repeated, and a stopped one is resumed. Seeds come one after the other, so that a comparison
    that is stopped early has compared all networks with the seeds that it has.

    Args:
        folder: holds a folder for each run, and `results.json`, which is written anew after each run.
        keep_weights: keep the models and checkpoints of finished runs.
        timed_rounds: at the end, time so many training steps of each network; 0 for none.

    Returns:
        The content of `results.json`.

    Raises:
        ValueError: if the folder holds the runs of another plan.
        Stopped: if a signal ended a run, after it was saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_same_plan(plan, folder)
    records = {}
    for seed in plan.seeds:
        for network in plan.networks:
            run = folder / f"{network.name}-seed{seed}"
            records[network.name, seed] = run_once(network, seed, run, keep_weights)
            write_json(collect(plan, records), folder / RESULTS)
    results = collect(plan, records)
    if timed_rounds:
        batch_sizes = [network["batch_size"] for network in results["networks"]]
        seconds = time_steps([network.config for network in plan.networks], batch_sizes, timed_rounds)
        for network, rounds in zip(results["networks"], seconds):
            network["step_seconds"] = [round(value, 5) for value in rounds]
        results["threads"] = torch.get_num_threads()
    write_json(results, folder / RESULTS)
    return results


def check_same_plan(plan: Plan, folder: Path) -> None:
    """Write the options of each network to the folder, or raise ValueError if it holds others for one of them."""
    file = folder / PLAN
    known = json.loads(file.read_text()) if file.exists() else {}
    for network in plan.networks:
        every = run_options(network, plan.seeds[0], folder).to_dict()
        options = {name: value for name, value in every.items() if name not in PER_RUN}
        before = known.setdefault(network.name, options)
        for name in sorted(options | before):
            if options.get(name) != before.get(name):
                raise ValueError(
                    f"{folder} holds runs of {network.name} with --{name} {before.get(name)}, and this plan says"
                    f" {options.get(name)}: choose another --output_dir."
                )
    write_json(known, file)


def run_options(network: Candidate, seed: int, run: Path) -> TrainOptions:
    """Return the options of one run."""
    overrides = [f"{field}={json.dumps(value)}" for field, value in network.overrides.items()]
    options = {
        **network.options,
        "model": network.model,
        "config_overrides": overrides or None,
        "seed": seed,
        "output_dir": str(run),
    }
    return parse_options([token for name, value in options.items() for token in to_tokens(name, value)])


def run_once(network: Candidate, seed: int, run: Path, keep_weights: bool) -> dict[str, Any]:
    """Run, resume or load one run and return its metrics."""
    metrics = run / "metrics.json"
    if not metrics.exists():
        options = run_options(network, seed, run)
        if any(run.glob(f"{PREFIX}*")):
            options.run.resume_from_checkpoint = "latest"
        train(options)
    if not keep_weights:
        for weights in (run / "model", *run.glob(f"{PREFIX}*")):
            shutil.rmtree(weights, ignore_errors=True)
    return json.loads(metrics.read_text())


def collect(plan: Plan, records: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Return the last evaluation of each run: picking the best one would select on the test set."""
    networks = []
    for network in plan.networks:
        runs = {seed: records[network.name, seed] for seed in plan.seeds if (network.name, seed) in records}
        if runs:
            networks.append(describe(network, runs))
    any_record = next(iter(records.values()))
    return {
        **{name: provenance()[name] for name in ("command", "hardware", "versions")},
        "commits": sorted({str(record["commit"]) for record in records.values()}),
        "data": {name: value for name, value in any_record["data"].items() if name != "labels"},
        "baseline": plan.baseline,
        "networks": networks,
    }


def describe(network: Candidate, runs: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Return a network, its cost, and the last evaluation of each of its runs."""
    some_run = next(iter(runs.values()))
    arguments = some_run["arguments"]
    batch_size = arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"]
    last = {seed: run["history"][-1] for seed, run in runs.items()}
    steps = next(iter(last.values()))["step"]
    return {
        "family": network.family,
        "mixer": network.mixer,
        "model": network.model,
        "overrides": network.overrides,
        "options": network.options,
        "parameters": some_run["parameters"],
        "macs": count_macs(network.config),
        "batch_size": batch_size,
        "steps": steps,
        "runs": [
            {"seed": seed, **{name: entry[name] for name in ("top1", "loss", "train_loss")}}
            for seed, entry in last.items()
        ],
    }


def time_steps(configs: list[PretrainedConfig], batch_sizes: list[int], rounds: int) -> list[list[float]]:
    """Return the seconds of a training step in each round, for each network, on random images."""
    works = []
    for config, batch_size in zip(configs, batch_sizes):
        images = torch.randn(batch_size, config.num_channels, *size_pair("image_size", config.image_size))
        works.append(training_work(AutoModelForImageClassification.from_config(config), images, torch.float32))
    return time_interleaved(works, rounds)
