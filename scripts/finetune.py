"""Train or fine-tune an image classifier: `accelerate launch scripts/finetune.py --help`."""

import sys
from pathlib import Path

from sk_transformers.command_line import one_sentence_errors
from sk_transformers.training.arguments import parse_arguments
from sk_transformers.training.interruptions import Stopped, TrainingError


def main() -> None:
    args = parse_arguments(recipes=Path(__file__).parent / "recipes")
    # seconds of imports, which --help need not wait for
    from accelerate import PartialState

    from sk_transformers.training.loop import train

    try:
        train(args)
    except Stopped as stopped:
        if PartialState().is_main_process:
            print(f"{stopped} Go on with --resume_from_checkpoint latest.", file=sys.stderr)
        sys.exit(stopped.status)


if __name__ == "__main__":
    with one_sentence_errors(TrainingError):
        main()
