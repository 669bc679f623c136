"""Train or fine-tune a semantic segmenter, which gives each pixel of an image a class.

sk-transformers train-segmentation --model skaformer-nano --dataset path/to/images-and-masks
accelerate launch -m sk_transformers.cli.train_segmentation --recipe ...  # several devices or nodes
"""

from collections.abc import Sequence

from ..training.command_line import TRAIN_SEGMENTATION
from .train import main as train


def main(argv: Sequence[str] | None = None) -> None:
    train(argv, TRAIN_SEGMENTATION)


if __name__ == "__main__":
    main()
