"""Tables of predictions say what the pipeline says, of every file, whatever stopped or shared the run."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import AutoModel, ViTImageProcessor, pipeline

from sk_transformers import SKViTModel
from sk_transformers.cli.predict import main
from sk_transformers.data.decoding import decode
from sk_transformers.evaluation import predict_files as module
from sk_transformers.evaluation import prediction_table
from sk_transformers.evaluation.options import PredictionOptions
from sk_transformers.evaluation.predict_files import predict_files
from sk_transformers.hub import export

from ..support.small_models import small_config, small_model

LABELS = {0: "ant", 1: "bee, wild", 2: "cicada"}
PROCESSOR = ViTImageProcessor(size={"height": 16, "width": 16})


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    model = small_model("skvit", id2label=LABELS, label2id={label: index for index, label in LABELS.items()})
    levels = torch.linspace(-1, 0.5, 9).view(-1, 1, 1, 1).expand(9, 3, 16, 16)
    with torch.no_grad():  # or all images would get the same classes
        model.classifier.weight.mul_(50)
        model.classifier.bias.sub_(model.eval()(levels).logits.mean(0))
    return str(export(model, PROCESSOR, tmp_path_factory.mktemp("repo") / "repo"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eleven files in folders, of which two are not readable images, and a hidden one."""
    folder = tmp_path_factory.mktemp("images") / "photos"
    rng = np.random.default_rng(0)
    names = ("b/2.png", "b/10.jpg", "a.png", "c.bmp", "d.webp", "b/x/e.png", "b/y.png", "ü.png")
    for brightness, name in zip(range(20, 256, 30), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, brightness, (20, 24, 3), dtype=np.uint8)).save(folder / name)
    Image.fromarray(rng.integers(0, 65536, (20, 24), dtype=np.uint16)).save(folder / "b" / "deep.png")
    (folder / "b" / "broken.png").write_bytes((folder / "a.png").read_bytes()[:300])
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("")
    return folder


ORDER = [
    "a.png",
    "c.bmp",
    "d.webp",
    "notes.txt",
    "ü.png",
    "b/10.jpg",
    "b/2.png",
    "b/broken.png",
    "b/deep.png",
    "b/y.png",
]
ORDER += ["b/x/e.png"]
UNREADABLE = {"notes.txt": "not an image", "b/broken.png": "damaged or cut off: image file is truncated"}


def read_csv(file):
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def read(file):
    if file.suffix == ".csv":
        return read_csv(file)
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return pq.read_table(file).to_pylist()


def options(**values):
    return PredictionOptions(**{"batch_size": 3, **values})


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_every_file_has_the_pipelines_classes_or_a_reason(repo, images, tmp_path, ending, capsys):
    output = tmp_path / f"table{ending}"
    main([repo, str(images), "-o", str(output), "--top_k", "2", "--batch_size", "3"])
    assert capsys.readouterr().out == f"{output}: 11 files, 2 of them unreadable\n"
    rows = read(output)
    assert [row["file"] for row in rows] == [f"{images}/{name}" for name in ORDER]
    classify = pipeline("image-classification", model=repo)
    for name, row in zip(ORDER, rows):
        if name in UNREADABLE:
            assert row["error"].startswith(UNREADABLE[name]) and not row.get("label_1")
            continue
        assert not row.get("error")
        with (images / name).open("rb") as file:
            expected = classify(decode(file), top_k=2)
        assert [row["label_1"], row["label_2"]] == [answer["label"] for answer in expected]
        scores = [float(row["score_1"]), float(row["score_2"])]
        assert scores == pytest.approx([answer["score"] for answer in expected], rel=1e-4)
    assert os.listdir(tmp_path) == [output.name]
    assert len({row["label_1"] for row in rows if row.get("label_1")}) > 1


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_pooled_features(repo, images, tmp_path, ending):
    output = tmp_path / f"features{ending}"
    predict_files(repo, [str(images)], str(output), options(embeddings=True))
    model = AutoModel.from_pretrained(repo).eval()
    for name, row in zip(ORDER, read(output)):
        if ending == ".csv":
            values = [row[f"embedding_{number}"] for number in range(model.config.hidden_size)]
            row["embedding"] = [float(value) for value in values] if values[0] else None
        if name in UNREADABLE:
            assert row["error"] and row.get("embedding") is None
            continue
        with (images / name).open("rb") as file, torch.no_grad():
            pooled = model(**PROCESSOR(decode(file), return_tensors="pt")).pooler_output[0]
        np.testing.assert_allclose(row["embedding"], pooled.numpy(), atol=1e-5)


def test_features_of_a_repo_without_a_head(images, tmp_path):
    repo = export(SKViTModel(small_config("skvit")), PROCESSOR, tmp_path / "headless")
    predict_files(str(repo), [str(images / "a.png")], str(tmp_path / "f.parquet"), options(embeddings=True))
    assert len(read(tmp_path / "f.parquet")[0]["embedding"]) == 16
    with pytest.raises(ValueError, match="headless is not a trained classifier"):
        predict_files(str(repo), [str(images / "a.png")], str(tmp_path / "c.csv"), options())


def test_a_stopped_run_goes_on(repo, images, tmp_path, monkeypatch):
    for loaded in (module, prediction_table):
        monkeypatch.setattr(loaded, "CHUNK", 4)
    predict_files(repo, [str(images)], str(tmp_path / "whole.csv"), options())
    answer, shown = module.top_classes, []

    def stop_after(images):
        def counted(network, pixel_values, top_k):
            if sum(shown) >= images:
                raise KeyboardInterrupt
            shown.append(len(pixel_values))
            return answer(network, pixel_values, top_k)

        return counted

    output = str(tmp_path / "table.csv")
    monkeypatch.setattr(module, "top_classes", stop_after(3))
    with pytest.raises(KeyboardInterrupt):
        predict_files(repo, [str(images)], output, options())
    assert not Path(output).exists()
    with pytest.raises(ValueError, match=r".table.csv.parts holds part of another prediction, whose top_k differed"):
        predict_files(repo, [str(images)], output, options(top_k=1))
    shown.clear()
    monkeypatch.setattr(module, "top_classes", stop_after(1000))
    summary = predict_files(repo, [str(images)], output, options())
    assert summary == (11, 2) and sum(shown) == 6  # of nine that are readable, the first chunk's three were done
    assert read_csv(tmp_path / "table.csv") == read_csv(tmp_path / "whole.csv")
    assert sorted(os.listdir(tmp_path)) == ["table.csv", "whole.csv"]


def test_a_chunk_of_unreadable_images_alone(repo, images, tmp_path, monkeypatch):
    for loaded in (module, prediction_table):
        monkeypatch.setattr(loaded, "CHUNK", 1)
    given = [str(images / "notes.txt"), str(images / "a.png"), str(images / "a.png")]
    for ending in ("csv", "jsonl", "parquet"):
        assert predict_files(repo, given, str(tmp_path / f"t.{ending}"), options()) == (2, 1)
        assert [Path(row["file"]).name for row in read(tmp_path / f"t.{ending}")] == ["notes.txt", "a.png"]
    assert predict_files(repo, given[:1], str(tmp_path / "none.csv"), options(embeddings=True)) == (1, 1)


@pytest.mark.slow
def test_two_processes_write_the_table_of_one(repo, images, tmp_path):
    script = tmp_path / "small_chunks.py"
    script.write_text(
        "from sk_transformers.evaluation import predict_files, prediction_table\n"
        "from sk_transformers.cli.predict import main\n"
        "predict_files.CHUNK = prediction_table.CHUNK = 2\n"
        "main()\n"
    )
    command = [script, repo, images, "--batch_size", "2", "--num_workers", "1", "-o"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for start, output in ((launch, tmp_path / "two.csv"), ([sys.executable], tmp_path / "one.csv")):
        done = subprocess.run(
            [*map(str, start), *map(str, command), str(output)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("11 files, 2 of them unreadable") == 1
    assert read_csv(tmp_path / "two.csv") == read_csv(tmp_path / "one.csv")


@pytest.mark.parametrize(
    "inputs, output, message",
    [
        (["nowhere"], "t.csv", "nowhere does not exist: expected image files, or folders of them."),
        (["empty"], "t.csv", "empty holds no files: expected images."),
        (["a.png"], "t.xls", "--output t.xls ends in none of .csv, .jsonl, .parquet: choose one of these formats."),
        (["a.png"], "taken.csv", "taken.csv exists already: nothing was written. Choose another folder, or remove it."),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(inputs, output, message, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken.csv").write_text("mine")
    (tmp_path / "a.png").write_bytes((images / "a.png").read_bytes())
    with pytest.raises(SystemExit, match=f"^error: {message}$"):
        main(["no-model", *inputs, "-o", output])
    assert sorted(os.listdir(tmp_path)) == ["a.png", "empty", "taken.csv"]
