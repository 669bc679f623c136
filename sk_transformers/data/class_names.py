"""The names of classes, as `--classes` gives them."""

import json
from pathlib import Path


def name_classes(asked: list[str]) -> list[str]:
    """Return the names of classes, in the order of their numbers.

    Args:
        asked: `--classes`: names, or a file with one a line or of JSON, or how many there are.

    Raises:
        ValueError: if two have one name.
    """
    names = asked
    if len(names) == 1 and Path(names[0]).is_file():
        names = read_names(Path(names[0]))
    elif len(names) == 1 and names[0].isdigit():
        names = [f"LABEL_{number}" for number in range(int(names[0]))]  # as transformers calls them
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"--classes names {twice!r} twice: give each class a name of its own.")
    return names


def read_names(file: Path) -> list[str]:
    """Return the names in a file, one a line, or of a JSON list or object of names by number (`id2label.json`)."""
    text = file.read_text(encoding="utf-8")
    if file.suffix.lower() != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    content = json.loads(text)
    names = content if isinstance(content, list) else [content.get(str(number)) for number in range(len(content))]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"--classes {file}: expected a list of names, or an object of names by number from 0 on.")
    return names
