"""Files and folders that are written whole or not at all: under a temporary name first, then renamed."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def whole_file(file: str | Path) -> Iterator[Path]:
    """Yield a path to write to, which becomes `file` at the end, or nothing if writing failed."""
    file = Path(file)
    partial = file.with_name(f".{file.name}.partial")
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a folder to write into, which becomes `folder` at the end, or nothing if writing failed.

    Raises:
        FileExistsError: if `folder` holds something already.
    """
    folder = Path(folder)
    check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp's are for their owner alone
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(content: Any, file: str | Path) -> None:
    """Write `content` as indented JSON."""
    with whole_file(file) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def save_figure(figure: "Figure", file: str | Path, dpi: int = 150) -> None:
    """Write a figure of matplotlib as PNG, without matplotlib's version in it."""
    with whole_file(file) as partial:
        figure.savefig(partial, dpi=dpi, format="png", metadata={"Software": None})


def check_free(folder: Path) -> None:
    """Raise FileExistsError if `folder` holds something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already: nothing was written. Choose another folder, or remove it.")
