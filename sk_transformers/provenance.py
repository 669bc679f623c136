"""Where a figure comes from: the command, the commit, the versions and the hardware."""

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "timm")


def provenance() -> dict[str, Any]:
    """Which command, code and machine a figure comes from."""
    return {
        "command": command_line(),
        "commit": git_commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "hardware": hardware(),
    }


def hardware() -> str:
    """The processors of this machine, as their makers call them."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        names = []
    processor = f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}"
    return f"{torch.cuda.get_device_name()}, {processor}" if torch.cuda.is_available() else processor


def command_line() -> str:
    """The command that repeats what this process does, without the folders of this machine.

    A run that was resumed is repeated by starting it.
    """
    program = Path(sys.argv[0])
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if program.parent.name == "cli":
        start = f"{'accelerate launch' if launched else 'python'} -m sk_transformers.cli.{program.stem}"
    elif program.name == "sk-transformers":
        start = program.name
    else:
        start = f"{'accelerate launch' if launched else 'python'} scripts/{program.name}"
    command = f"{start} {shlex.join(map(shown, sys.argv[1:]))}"
    return re.sub(r" --resume_from_checkpoint[ =]\S+", "", command)


def shown(value: Any) -> Any:
    """An option as others may see it: of an absolute path, its name."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def git_commit() -> str | None:
    """The commit of the checkout that this file is in, with `+changes` if it was changed; None outside of one."""
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
