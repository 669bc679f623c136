"""`sk-transformers COMMAND ...`: finds the command's module and hands the rest of the line to it."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn

from ..version import __version__

# Each is the module of the same name in this folder, imported when it is called: --help need not wait for torch.
COMMANDS = {
    "train": "train or fine-tune a classifier; without arguments, the quick start on digits",
    "train-segmentation": "train or fine-tune a semantic segmenter on images and masks",
    "train-detection": "train or fine-tune a detector on images and objects",
    "evaluate": "measure a classifier on labeled images, a segmenter on masks, or a detector on objects",
    "predict": "write a table of the classes or features of image files, or their masks or objects",
    "explain": "draw what a trained network looks at in images",
    "convert": "turn a checkpoint of timm, transformers or the authors into a repo folder",
    "calibrate": "give static keys or maps to a trained Vision Transformer",
    "export": "write a trained network of the zoo, or a head over one, as a repo folder",
    "export-onnx": "write a classifier as ONNX",
    "push": "check a run or repo folder and bring it to the Hub",
    "demo": "show networks side by side in the browser",
    "list": "name the networks of the zoo, the recipes and the configurations of accelerate launch",
    "env": "print versions and hardware, for a bug report",
}


def main(argv: Sequence[str] | None = None) -> None:
    command, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if command in ("-h", "--help"):
        print(usage())
    elif command == "--version":
        print(f"sk-transformers {__version__}")
    elif command in COMMANDS:
        import_module(f".{command.replace('-', '_')}", __package__).main(rest)
    else:
        refuse(command)


def usage() -> str:
    """Return the text of `--help`."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: sk-transformers COMMAND ...\n       sk-transformers --version\n\n"
        "Static key attention for vision: a model zoo for the Hugging Face Hub.\n\n"
        f"commands:\n{commands}\n\n`sk-transformers COMMAND --help` names a command's options."
    )


def refuse(command: str) -> NoReturn:
    """End the process with status 2, as argparse does, and the nearest commands to one that does not exist."""
    near = get_close_matches(command.replace("_", "-"), COMMANDS, n=2)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Expected one of {', '.join(COMMANDS)}."
    print(f"error: unknown command {command!r}. {hint}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
