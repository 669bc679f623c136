"""Fetch transformers' own tests, of the version that is installed: `python -m tests.common.fetch`."""

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".transformers-tests" / f"transformers-{version('transformers')}"


def fetch() -> None:
    """Unpack the folder `tests` of the source distribution on PyPI into `FOLDER`, unless it is there."""
    if FOLDER.exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", scratch]
        package = FOLDER.name.replace("-", "==")
        subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True)
        with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as archive:
            members = [member for member in archive if member.name.startswith(f"{FOLDER.name}/tests/")]
            archive.extractall(FOLDER.parent, members, filter="data")


if __name__ == "__main__":
    fetch()
