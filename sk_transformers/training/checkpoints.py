"""Checkpoints of a run: written whole or not at all, the best and the latest kept."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from ..data.fingerprint import Fingerprint, describe_change

PREFIX = "checkpoint-"
STATE = "progress.json"
EMA = "ema.safetensors"


@dataclass
class RunState:
    """How far a run is, and what it measured: saved with every checkpoint."""

    step: int = 0  # optimizer steps
    best_metric: str = "top1"  # a figure of the evaluations, which chooses the best weights
    best_score: float = -1.0
    best_step: int = 0
    evaluations_since_best: int = 0
    seconds: float = 0.0  # of all processes that worked on the run one after the other
    epoch_losses: list[float] = field(default_factory=list)  # of the steps since the last evaluation
    unreadable: int = 0  # images skipped since the last evaluation
    history: list[dict[str, float]] = field(default_factory=list)  # an entry for each evaluation
    batches: dict[str, int] = field(default_factory=dict)  # what the next batch depends on, beside the step
    data: dict[str, Any] = field(default_factory=dict)  # its fingerprint

    def add_evaluation(self, entry: dict[str, float]) -> None:
        """Note the figures of an evaluation, and whether it is the best so far; that of averaged weights counts."""
        score = entry.get(f"ema_{self.best_metric}", entry[self.best_metric])
        self.history.append(entry)
        self.epoch_losses, self.unreadable = [], 0
        self.evaluations_since_best += 1
        if score > self.best_score:
            self.best_score, self.best_step, self.evaluations_since_best = score, self.step, 0

    def forget_best(self) -> None:
        """Let the next evaluation be the best so far, whatever came before."""
        self.best_score, self.best_step, self.evaluations_since_best = -1.0, 0, 0


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / f"{PREFIX}{step:07d}"


def save_checkpoint(
    accelerator: Accelerator, run: Path, state: RunState, ema: nn.Module | None = None, limit: int = 1
) -> None:
    """Save the state of all that the accelerator prepared; keep the best and the `limit` latest checkpoints."""
    folder = checkpoint_folder(run, state.step)
    partial = folder.with_name(f".{folder.name}.partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if ema is not None:
            save_file({name: tensor.contiguous() for name, tensor in ema.state_dict().items()}, partial / EMA)
        (partial / STATE).write_text(json.dumps(asdict(state)) + "\n")
        if folder.exists():  # saved in mid-epoch, and again after the evaluation
            shutil.rmtree(folder)
        partial.rename(folder)
        best = checkpoint_folder(run, state.best_step)
        for other in sorted(run.glob(f"{PREFIX}*"))[:-limit]:
            if other != best:
                shutil.rmtree(other)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator: Accelerator, checkpoint: Path, ema: nn.Module | None = None) -> RunState:
    """Load what `save_checkpoint` saved; ValueError if it is not a checkpoint of such a run."""
    state = read_state(checkpoint)
    if ema is not None:
        if not (checkpoint / EMA).is_file():
            raise ValueError(f"{checkpoint} has no averaged weights: leave --ema_decay out, as the run did.")
        ema.load_state_dict(load_file(checkpoint / EMA))
    accelerator.load_state(str(checkpoint))
    return state


def read_state(checkpoint: Path) -> RunState:
    """Return how far the run was at a checkpoint; ValueError if it is not one."""
    try:
        saved = json.loads((checkpoint / STATE).read_text())
        if "best_top1" in saved:  # of 0.1
            saved["best_score"] = saved.pop("best_top1")
        return RunState(**saved)
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of sk-transformers train: {STATE} cannot be read."
        ) from error


def check_same_batches(checkpoint: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ValueError if the next batch would not be the one that the stopped run would have had."""
    for what, value in before.items():
        if now[what] != value:
            raise ValueError(
                f"{checkpoint} was made with {what} {value}, and this run has {now[what]}: its next batch would be"
                " another one. Resume with the same, or start a new run with --model from the old one's."
            )


def check_same_data(checkpoint: Path, before: Fingerprint, now: Fingerprint, may_change: bool) -> bool:
    """Return whether the data is what the stopped run had.

    Raises:
        ValueError: if it is not, unless it `may_change`. Classes may not: the weights are for those.
    """
    change = describe_change(before, now) if before else None
    if change is None or (may_change and before["labels"] == now["labels"]):
        return change is None
    advice = "Bring the old data back, or start a new run with --model from the old one's"
    if before["labels"] == now["labels"]:
        advice += ", or pass --resume_on_changed_data"
    raise ValueError(f"{checkpoint} was made with other data: {change}. {advice}.")


def bring_best_checkpoint(accelerator: Accelerator, run: Path, checkpoint: Path, state: RunState) -> None:
    """Copy the best checkpoint of the resumed run into this run's folder, if that is another.

    Where it is lost, the best is found anew.
    """
    best = checkpoint_folder(checkpoint.parent, state.best_step)
    here = checkpoint_folder(run, state.best_step)
    if not best.is_dir():
        state.forget_best()
    elif accelerator.is_main_process and not here.exists():
        partial = here.with_name(f".{here.name}.partial")
        shutil.copytree(best, partial, dirs_exist_ok=True)
        partial.rename(here)


def find_checkpoint(run: Path, which: str) -> Path:
    """Return the checkpoint at the path `which`, or, if that is `"latest"`, the one furthest on in the run's folder."""
    if which != "latest":
        if not Path(which).is_dir():
            raise FileNotFoundError(f"--resume_from_checkpoint {which}: there is no such folder.")
        return Path(which)
    checkpoints = sorted(run.glob(f"{PREFIX}*"))
    if not checkpoints:
        raise FileNotFoundError(f"--resume_from_checkpoint latest: {run} holds no checkpoint.")
    return checkpoints[-1]
