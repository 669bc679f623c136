"""Checkpoints of a run: written whole or not at all, the best and the last kept."""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

PREFIX = "checkpoint-"


@dataclass
class Progress:
    """How far a run is, and what it measured: saved with every checkpoint."""

    step: int = 0  # optimizer steps
    best_top1: float = -1.0
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # an entry for each evaluation

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / f"{PREFIX}{step:07d}"


def save_checkpoint(accelerator: Accelerator, run: Path, progress: Progress) -> None:
    """Save the state of all that the accelerator prepared; of the earlier checkpoints, keep the best."""
    folder = checkpoint_folder(run, progress.step)
    partial = folder.with_name(f".{folder.name}.partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if folder.exists():  # saved at the end of an epoch, and again at the end of the run
            shutil.rmtree(folder)
        partial.rename(folder)
        for other in run.glob(f"{PREFIX}*"):
            if other not in (folder, checkpoint_folder(run, progress.best_step)):
                shutil.rmtree(other)
    accelerator.wait_for_everyone()


def bring_best_checkpoint(run: Path, checkpoint: Path, progress: Progress) -> None:
    """Copy the best checkpoint of the run that is gone on with into this run's folder, if that is another.

    Where it is lost, the best is found anew.
    """
    best = checkpoint_folder(checkpoint.parent, progress.best_step)
    here = checkpoint_folder(run, progress.best_step)
    if not best.is_dir():
        progress.best_top1, progress.best_step = -1.0, 0
    elif not here.exists():
        partial = here.with_name(f".{here.name}.partial")
        shutil.copytree(best, partial, dirs_exist_ok=True)
        partial.rename(here)


def find_checkpoint(run: Path, which: str) -> Path:
    """The checkpoint at the path `which`, or, if that is `"latest"`, the one furthest on in the run's folder."""
    if which != "latest":
        if not Path(which).is_dir():
            raise FileNotFoundError(f"--resume_from_checkpoint {which}: there is no such folder.")
        return Path(which)
    checkpoints = sorted(run.glob(f"{PREFIX}*"))
    if not checkpoints:
        raise FileNotFoundError(f"--resume_from_checkpoint latest: {run} holds no checkpoint.")
    return checkpoints[-1]
