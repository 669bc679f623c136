"""Where a run's curves go while it runs: TensorBoard, Weights & Biases, Trackio."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..errors import first_line

PROJECT = "sk_transformers"


def installed_trackers(report_to: list[str]) -> list[str]:
    """Return the trackers of `--report_to`; ImportError if one of them is not installed."""
    trackers = [name for name in report_to if name != "none"]
    for name in trackers:
        if find_spec(name) is None:
            raise ImportError(f"--report_to {name}: it is not installed: pip install {name}")
    return trackers


def start_trackers(
    accelerator: Accelerator, report_to: list[str], run: Path, options: dict[str, Any], resumed: bool
) -> None:
    """Open the accelerator's trackers under the name of the run; a resumed run's curves are continued.

    Args:
        accelerator: that keeps them.
        report_to: their names, or `none`.
        run: the run's folder.
        options: what they show beside the curves.
        resumed: whether the run was begun before.

    Raises:
        ValueError: if one cannot be opened, as for lack of a login.
    """
    if accelerator.is_main_process and report_to != ["none"]:
        run.mkdir(parents=True, exist_ok=True)  # or wandb would leave it for another folder
    settings = {
        "wandb": {"name": run.name, "dir": str(run), "resume": "auto"},  # its folder there knows what was stopped
        "trackio": {"name": run.name, "resume": "allow" if resumed else "never"},
    }
    try:
        accelerator.init_trackers(
            PROJECT,
            {name: str(value) for name, value in options.items()},
            init_kwargs={name: settings[name] for name in report_to if name in settings},
        )
    except Exception as error:  # each tracker raises its own kinds
        reason = first_line(error)
        raise ValueError(f"--report_to {' '.join(report_to)}: no tracker could be opened: {reason}") from error
