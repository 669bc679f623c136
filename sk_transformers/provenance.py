"""Where a figure comes from: the command, the commit, the versions and the hardware."""

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .version import __version__

LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "timm")
ALL_LIBRARIES = (
    *LIBRARIES,
    *("torchvision", "huggingface_hub", "safetensors", "pillow", "numpy", "evaluate", "scikit-learn", "torchmetrics"),
    *("peft", "onnx", "onnxruntime", "onnxscript", "gradio", "deepspeed"),
)


def provenance() -> dict[str, Any]:
    """Return which command, code and machine a figure comes from."""
    return {
        "command": command_line(),
        "commit": git_commit(),
        "versions": {"python": platform.python_version(), **installed(LIBRARIES)},
        "hardware": hardware(),
    }


def environment() -> dict[str, str]:
    """Return what a bug report needs to know of code, libraries and machine, without paths."""
    commit = git_commit()
    return {
        "sk_transformers": __version__ if commit is None else f"{__version__}, commit {commit}",
        "python": platform.python_version(),
        "platform": platform.platform(),
        **installed(ALL_LIBRARIES),
        "hardware": hardware(),
        "threads": f"{torch.get_num_threads()} of torch",
        "CUDA": f"{torch.version.cuda or 'not in this torch'}, devices: {torch.cuda.device_count()}",
    }


def installed(libraries: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    versions = {}
    for name in libraries:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def hardware() -> str:
    """Return the GPU and the CPU of this machine, as their makers call them."""
    cpu = f"{os.cpu_count()} cores of {cpu_name()}"
    return f"{torch.cuda.get_device_name()}, {cpu}" if torch.cuda.is_available() else cpu


def cpu_name() -> str:
    """Return the CPU as its maker calls it, or the architecture where no file says so."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def command_line() -> str:
    """Return the command that repeats what this process does, without the folders of this machine.

    A run that was resumed is repeated by starting it.
    """
    program = Path(sys.argv[0])
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ  # set by accelerate launch
    if program.parent.name == "cli" and program.stem != "main" and launched:
        start = f"accelerate launch -m sk_transformers.cli.{program.stem}"
    elif program.parent.name == "cli":
        start = "sk-transformers" if program.stem == "main" else f"sk-transformers {program.stem.replace('_', '-')}"
    elif program.parent.name == "scripts":
        start = f"{'accelerate launch' if launched else 'python'} scripts/{program.name}"
    else:
        start = program.name
    command = f"{start} {shlex.join(map(without_local_folder, sys.argv[1:]))}".strip()
    return re.sub(r" --resume_from_checkpoint[ =]\S+", "", command)


def without_local_folder(value: Any) -> Any:
    """Return an option as others may see it: of an absolute path, also in `--name=path`, the last part."""
    if not isinstance(value, str):
        return value
    option, equals, path = value.partition("=") if value.startswith("--") else ("", "", value)
    return f"{option}{equals}{Path(path).name}" if Path(path).is_absolute() else value


def git_commit() -> str | None:
    """Return the commit of the checkout that this file is in, with `+changes` if it was changed, or None."""
    folder = Path(__file__).parent

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", "-C", folder, *command], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # or the checkout is somebody else's
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
