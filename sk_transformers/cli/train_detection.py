"""Train or fine-tune a detector, which finds the objects in an image and their masks.

sk-transformers train-detection --model skaformer-nano --dataset path/to/images-with-coco-json
accelerate launch -m sk_transformers.cli.train_detection --recipe ...  # several devices or nodes
"""

from collections.abc import Sequence

from ..training.command_line import TRAIN_DETECTION
from .train import main as train


def main(argv: Sequence[str] | None = None) -> None:
    train(argv, TRAIN_DETECTION)


if __name__ == "__main__":
    main()
