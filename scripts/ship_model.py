"""Put the network of a finished run into `model_cards/`, as one that `create_model(NAME, pretrained=True)` loads.

python scripts/ship_model.py runs/cifar10/skaformer-micro-32 --dataset path/to/cifar10 --corruptions

The weights are kept in float16. They are measured as they are kept, on the test images, which nothing was chosen by;
the record names their hash. Add the network's name to TRAINED in sk_transformers/zoo.py.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from render_cards import EVALUATION, FOLDER, trained_card

from sk_transformers.cli.errors import exit_on_user_error

PICTURES = FOLDER / "examples"  # photographs that anybody may show, which its README names


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--dataset", required=True, help="with the test images, in a split of their own")
    parser.add_argument("--corruptions", action="store_true", help="measure under the 15 common corruptions, too")
    parser.add_argument("--severities", nargs="+", type=int, default=[], help="of corruption [1 2 3 4 5]")
    parser.add_argument("--num_workers", type=int, default=0)
    return parser.parse_args(argv)


def store_model(run: Path, folder: Path) -> None:
    """Write weights in float16, configuration and image processor of a run's network."""
    from sk_transformers.pretrained import load_classifier

    model, image_processor = load_classifier(str(run / "model"))
    model.half().save_pretrained(folder)
    image_processor.save_pretrained(folder)
    for code in folder.glob("*.py"):
        code.unlink()  # there is one copy, in models/
    config = json.loads((folder / "config.json").read_text())
    config.pop("auto_map", None)
    write(folder / "config.json", {**config, "dtype": "float32"})  # what it loads in


def store_record(run: Path, folder: Path) -> str:
    """Write the record of a run without the folders of this machine, and its curves; return the network's name."""
    from sk_transformers.hub.fingerprint import fingerprint
    from sk_transformers.pretrained import load_classifier
    from sk_transformers.provenance import without_local_folder

    record = json.loads((run / "metrics.json").read_text())
    record["arguments"] = {name: without_local_folder(value) for name, value in record["arguments"].items()}
    record["data"]["name"] = without_local_folder(record["data"]["name"])
    record["fingerprint"] = fingerprint(load_classifier(str(folder))[0])  # of the weights as they are kept
    write(folder / "metrics.json", record)
    shutil.copyfile(run / "curves.png", folder / "curves.png")
    return record["arguments"]["model"]


def store_evaluation(args: argparse.Namespace, name: str, folder: Path, work: Path) -> None:
    """Measure the stored network on the test images, and write the record and the plots."""
    from sk_transformers.data.options import DataOptions
    from sk_transformers.evaluation.options import EvaluationOptions
    from sk_transformers.evaluation.run import evaluate_model

    options = EvaluationOptions(
        model=str(folder),
        output_dir=str(work / "evaluation"),
        corruptions=[] if args.corruptions else None,
        severities=args.severities,
    )
    data = DataOptions(dataset=args.dataset, label_column="label", num_workers=args.num_workers)
    written, _ = evaluate_model(options, data)
    assert written is not None
    record = json.loads((written / "evaluation.json").read_text())
    write(written / "evaluation.json", {**record, "model": name, "dataset": Path(args.dataset).name})
    shutil.copytree(written, folder / EVALUATION)


def store_examples(folder: Path) -> None:
    """Write the photographs in small, and what the network answers to them."""
    from transformers import pipeline

    from sk_transformers.hub.cards.completion import example_of
    from sk_transformers.pretrained import load_classifier

    model, image_processor = load_classifier(str(folder))
    classify = pipeline("image-classification", model=model, image_processor=image_processor)
    examples = [example_of(file, classify(str(file))) for file in sorted(PICTURES.glob("*.png"))]
    (folder / "examples").mkdir()
    for example in examples:
        (folder / example["file"]).write_bytes(example.pop("picture"))
    write(folder / "examples.json", examples)


def write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=file.name == "config.json") + "\n")


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=".") as work:
        folder = Path(work, "network")
        store_model(args.run, folder)
        name = store_record(args.run, folder)
        store_evaluation(args, name, folder, Path(work))
        store_examples(folder)
        (folder / "README.md").write_text(trained_card(folder, name), encoding="utf-8")
        if (FOLDER / name).exists():
            (FOLDER / name).rename(Path(work, "former"))
        folder.rename(FOLDER / name)
    print(FOLDER / name)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
