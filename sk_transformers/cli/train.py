"""Train or fine-tune an image classifier.

sk-transformers train                                        # the digits recipe: a real model on real data in a minute
accelerate launch -m sk_transformers.cli.train --recipe ...  # several devices or nodes
"""

import sys
from collections.abc import Sequence

from ..training.options import parse_arguments
from .errors import one_sentence_errors


def main(argv: Sequence[str] | None = None) -> None:
    with one_sentence_errors():
        args = parse_arguments(argv)
    # seconds of imports, which --help need not wait for
    from accelerate import PartialState

    from ..training.loop import train
    from ..training.signals import Stopped, TrainingError

    with one_sentence_errors(TrainingError):
        try:
            train(args)
        except Stopped as stopped:
            if PartialState().is_main_process:
                print(f"{stopped} Go on with --resume_from_checkpoint latest.", file=sys.stderr)
            sys.exit(stopped.status)


if __name__ == "__main__":
    main()
