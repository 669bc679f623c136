"""`sk-transformers COMMAND ...`: finds the command's module and hands the rest of the line to it."""

import sys
from collections.abc import Sequence
from importlib import import_module

# Each is the module of the same name in this folder, imported when it is called: --help need not wait for torch.
COMMANDS = {
    "train": "train or fine-tune a classifier; without arguments, the quick start on digits",
    "evaluate": "measure a classifier on labeled images",
    "convert": "turn a checkpoint of timm, transformers or the authors into a repo folder",
    "export-onnx": "write a classifier as ONNX",
    "push": "check a run or repo folder and bring it to the Hub",
    "demo": "show networks side by side in the browser",
    "list": "the networks of the zoo and the recipes",
    "env": "versions and hardware, for a bug report",
}


def usage() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    return f"usage: sk-transformers COMMAND ...\n\ncommands:\n{commands}\n\nsk-transformers COMMAND --help says more."


def main(argv: Sequence[str] | None = None) -> None:
    command, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if command in ("-h", "--help"):
        print(usage())
        return
    if command not in COMMANDS:
        sys.exit(f"error: unknown command {command!r}: expected one of {', '.join(COMMANDS)}.")
    import_module(f".{command.replace('-', '_')}", __package__).main(rest)


if __name__ == "__main__":
    main()
