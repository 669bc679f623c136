"""Train or fine-tune an image classifier.

sk-transformers train                                        # the digits recipe: a real model on real data in a minute
accelerate launch -m sk_transformers.cli.train --recipe ...  # several devices or nodes
"""

import sys
from collections.abc import Sequence

from ..training.command_line import TRAIN, TrainCommand, parse_options
from ..training.signals import Stopped, TrainingError
from .errors import exit_on_user_error


def main(argv: Sequence[str] | None = None, command: TrainCommand = TRAIN) -> None:
    with exit_on_user_error(TrainingError):
        options = parse_options(argv, command)
        # seconds of imports, which --help need not wait for
        from accelerate import PartialState

        from ..training.loop import train

        try:
            train(options)
        except Stopped as stopped:
            if PartialState().is_main_process:
                print(f"{stopped} Go on with --resume_from_checkpoint latest.", file=sys.stderr)
            sys.exit(stopped.status)


if __name__ == "__main__":
    main()
