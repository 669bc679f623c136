"""Options of `sk-transformers train` as YAML, and configurations of `accelerate launch`, by their names."""

from pathlib import Path

FOLDER = Path(__file__).parent


def recipes() -> dict[str, Path]:
    """Return the files of options by their names."""
    return _files(FOLDER)


def accelerate_configurations() -> dict[str, Path]:
    """Return the files for `accelerate launch --config_file` by their names."""
    return _files(FOLDER / "accelerate")


def summary(file: Path) -> str:
    """Return the first sentence of the comment at the head of a file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    end = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comment = " ".join(line.removeprefix("#").strip() for line in lines[:end])
    return comment.split(". ")[0].rstrip(".")


def _files(folder: Path) -> dict[str, Path]:
    return {file.stem: file for file in sorted(folder.glob("*.yaml"), key=lambda file: file.stem)}
