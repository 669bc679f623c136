"""Train or fine-tune an image classifier: `accelerate launch scripts/finetune.py --help`."""

from pathlib import Path

from sk_transformers.command_line import one_sentence_errors
from sk_transformers.training.arguments import parse_arguments


def main() -> None:
    args = parse_arguments(recipes=Path(__file__).parent / "recipes")
    from sk_transformers.training.loop import train  # seconds of imports, which --help need not wait for

    train(args)


if __name__ == "__main__":
    with one_sentence_errors():
        main()
