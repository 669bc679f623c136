"""What a run says of itself: the record in `metrics.json`, and the card made from it."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from accelerate import Accelerator
from huggingface_hub import EvalResult, ModelCard
from transformers import PreTrainedModel

from ..data.builtin import BUILT_IN
from ..data.image_data import ImageData
from ..hub.cards.card import LICENSE, MEASURED, OriginFacts, RepoFacts, TrainingFacts, create_card, task_of
from ..hub.fingerprint import fingerprint
from ..hub.licenses import license_on_card
from ..models.configuration_checks import size_pair
from ..provenance import provenance, without_local_folder
from ..zoo import VARIANTS
from .checkpoints import RunState
from .options import TrainOptions

KNOWN_DATA = {
    "digits": "scikit-learn's handwritten digits of 8 x 8 pixels (from UCI, CC BY 4.0)",
    "fashion-mnist": "Fashion-MNIST (Zalando, MIT)",
    "cifar10": "CIFAR-10 (Krizhevsky 2009) with its images as JPEG",
}
TIMED_IMAGES = 9


def run_record(
    options: TrainOptions, model: PreTrainedModel, data: ImageData, state: RunState, accelerator: Accelerator
) -> dict[str, Any]:
    """Return everything that is needed to repeat the run, and what it measured."""
    best = next(entry for entry in state.history if entry["step"] == state.best_step)
    exported = {name.removeprefix("ema_"): value for name, value in best.items() if name.startswith("ema_")}
    return {
        **provenance(),
        "processes": accelerator.num_processes,
        "device": accelerator.device.type,
        "mixed_precision": accelerator.mixed_precision,
        "seconds": round(state.seconds, 1),
        "seed": options.run.seed,
        "arguments": options.to_dict(),
        "data": {
            "name": data.name,
            "revision": data.revision,
            "train_images": data.train_images,
            "validation_images": len(data.validation),
            "labels": data.labels,
        },
        "parameters": model.num_parameters(),
        "fingerprint": fingerprint(model),
        "seconds_an_image": seconds_an_image(model),
        "threads": torch.get_num_threads(),
        "best_metric": state.best_metric,
        "best": {**best, **exported},
        "history": state.history,
    }


@torch.inference_mode()
def seconds_an_image(model: PreTrainedModel) -> float:
    """Return how long a model on the CPU takes for one image: the median of some times."""
    size = size_pair("image_size", model.config.image_size)
    image = torch.zeros(1, model.config.num_channels, *size, dtype=model.dtype)
    times = []
    for _ in range(1 + TIMED_IMAGES):
        start = perf_counter()
        model(image)
        times.append(perf_counter() - start)
    return median(times[1:])  # the first one warms up


def run_card(
    model: PreTrainedModel,
    name: str,
    record: dict[str, Any],
    evaluations: Sequence[dict[str, Any]] = (),
    repo: RepoFacts | None = None,
) -> ModelCard:
    """Return the card of a run's model: how it was trained, and what was measured on validation images.

    Args:
        model: on the meta device will do.
        name: the card's title.
        record: see `run_record`.
        evaluations, repo: see `create_card`.
    """
    data, best, arguments = record["data"], record["best"], record["arguments"]
    results = [
        EvalResult(
            task_type=task_of(model),
            dataset_type=Path(data["name"]).name,
            dataset_name=Path(data["name"]).name,
            dataset_split="validation",
            dataset_revision=data["revision"],
            metric_type=kind,
            metric_name=title,
            metric_value=round(best[key], 4),
        )
        for key, title, kind in MEASURED
        if key in best
    ]
    name_of_data = KNOWN_DATA.get(data["name"], Path(data["name"]).name)
    commit, _, changes = (record["commit"] or "").partition("+")
    if commit:
        commit += f" of sk_transformers{', and changes that were not committed' if changes else ''}"
    training = {
        "Data": f"{name_of_data}: {data['train_images']} images, and {data['validation_images']} held out",
        "Data revision": data["revision"],
        "Command": f"`{record['command']}`",
        "Commit": commit,
        "Seed": record["seed"],
        "Steps": f"{best['step']}, the best checkpoint of {record['history'][-1]['step']} steps",
        "Time": f"{duration(record['seconds'])} on {record['processes']} x {record['device']} ({record['hardware']})",
    }
    started_from, dataset = arguments["model"], data["name"]
    fresh = started_from in VARIANTS
    return create_card(
        model,
        name,
        TrainingFacts(
            {what: value for what, value in training.items() if value not in (None, "")},
            results,
            recipe={option: without_local_folder(value) for option, value in arguments.items() if value is not None},
            plots={"curves.png": "Loss, figures of validation and learning rate by epoch"},
            speeds={
                "One image at a time": f"{1000 * record['seconds_an_image']:.3g} ms each on the CPU, in"
                f" {record['threads']} thread{'s' if record['threads'] > 1 else ''} ({record['hardware']})"
            },
        ),
        origin=OriginFacts(
            variant=started_from if fresh else None,
            license=LICENSE if fresh else license_on_card(started_from) or "other",
            base_model=started_from if is_hub_id(started_from) and not fresh else None,
            datasets=[dataset] if is_hub_id(dataset) and dataset not in BUILT_IN else None,
        ),
        evaluations=evaluations,
        repo=repo,
    )


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def is_hub_id(name: str) -> bool:
    """Return whether it names something on the Hub, rather than here."""
    return not Path(name).exists() and not Path(name).is_absolute()
