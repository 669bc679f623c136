"""Tables of calibrations, from what they left."""

import json

import pytest

from sk_transformers.benchmarks.calibration_report import (
    to_accuracies_table,
    to_costs_table,
    to_layers_table,
    to_replaced_table,
    to_tables,
)
from sk_transformers.benchmarks.commands import main


def row(layer, kind, error, cosine=0.99):
    costs = {"macs": 50_000_000, "saved_macs": 15_000_000, "saved_parameters": 1000}
    times = {"milliseconds": 3.0, "attention_milliseconds": 4.0}
    return {"layer": layer, "kind": kind, "error": error, "cosine": cosine, **costs, **times}


CALIBRATION = {
    "source": "vit",
    "license": "mit",
    "images": {"name": "photos", "calibration": 600, "held_out": 200, "labels": False},
    "image_size": [140, 140],
    "candidates": [
        row(0, "static_map", 0.2), row(0, "static_key+bias", 0.1),
        row(1, "static_map", 0.01), row(1, "static_key", 0.02),
    ],
    "replaced": [row(0, "static_key+bias", 0.1), row(1, "static_map", 0.15)],
    "distilled": [{"step": 100, "error": 0.12}, {"step": 200, "error": 0.11}],
    "before": {"error": 0.0, "multiply_adds": 2e9, "parameters": 22_000_000, "images_per_second": 50.0},
    "after": {
        "error": 0.1, "cosine": 0.995, "multiply_adds": 1.5e9, "parameters": 21_000_000, "images_per_second": 60.0,
    },
    "provenance": {"command": "sk-transformers calibrate vit", "commit": "0123456789", "hardware": "2 cores"},
}  # fmt: skip


def test_the_best_kind_of_a_layer_is_bold():
    header, _, first, second = to_layers_table(CALIBRATION["candidates"]).splitlines()
    assert header == "| layer | static map | static key | key and bias |"
    assert first == "| 0 | 0.200 / 0.990 |  | **0.100 / 0.990** |"
    assert second == "| 1 | **0.010 / 0.990** | 0.020 / 0.990 |  |"


def test_errors_add_up_from_left_to_right():
    header, _, error, cosine = to_replaced_table(CALIBRATION).splitlines()
    assert header == "| layers | 0 | + 1 | 200 steps end to end |"
    assert error == "| error | 0.100 | 0.150 | 0.100 |" and cosine == "| cosine | 0.990 | 0.990 | 0.995 |"
    assert "steps" not in to_replaced_table({**CALIBRATION, "distilled": []})
    with_labels = [{**one, "top1": top1} for one, top1 in zip(CALIBRATION["replaced"], (0.9, 0.85))]
    table = to_replaced_table({**CALIBRATION, "replaced": with_labels, "distilled": []})
    assert table.splitlines()[-1] == "| top1 | 90.0% | 85.0% |"


def test_costs_are_of_each_kind():
    assert "| static map | 50.0 M | 15.0 M | 1,000 | 0.75 |" in to_costs_table(CALIBRATION["candidates"])


def test_figures_are_gathered_in_one_file(tmp_path):
    (tmp_path / "calibration.json").write_text(json.dumps({**CALIBRATION, "source": "secret"}))
    timing = {"network": "vit", "macs": 1e9, "runtime": "eager", "batch": 8, "milliseconds": 80.0, "ratio": 1.0}
    timing |= {"milliseconds_99": 90.0, "gain": 1.0, "bytes": 2**20}
    machine = {"cpu": "c", "threads": 1, "capability": "AVX2", "amx": False, "versions": {}}
    run = {"timings": [timing], "machine": machine, "provenance": {"command": "benchmark"}, "cpu_time": False}
    probe = {"network": "vit", "train_images": 9, "test_images": 5, "top1": 0.6}
    (tmp_path / "runtimes.json").write_text(json.dumps({"runs": [run]}))
    (tmp_path / "probe.json").write_text(json.dumps({"probes": [probe]}))
    where = {"dataset": "animals", "split": "test", "images": 50, "command": "evaluate", "commit": "0", "hardware": "2"}
    for name, dataset, top1 in (("before", "animals", 0.8), ("after", str(tmp_path / "animals"), 0.75)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_text(json.dumps({**where, "dataset": dataset, "top1": top1}))
    output = tmp_path / "out.json"
    main([
        "calibration", f"small={tmp_path}", "--runtimes", f"mixers={tmp_path / 'runtimes.json'}",
        "--probe", str(tmp_path / "probe.json"), "--output", str(output),
        "--evaluations", f"attention={tmp_path / 'before'}", f"static keys={tmp_path / 'after'}",
    ])  # fmt: skip
    tables = to_tables(json.loads(output.read_text()))
    assert tables["calibration small"].startswith("`sk-transformers calibrate vit`: 600 images calibrate, 200 others")
    assert "| multiply-adds | 2.00 G | 1.50 G |" in tables["calibration small whole"]
    assert "| vit | 60.00% |" in tables["probe"] and "| eager | vit | 100 | 1.00 |" in tables["runtimes mixers"]
    assert tables["calibration accuracies"].splitlines()[::2] == [
        "| network | top-1 on animals, test, 50 images |", "| attention | 80.00% |"
    ]  # fmt: skip
    assert str(tmp_path) not in output.read_text()
    with pytest.raises(ValueError, match=r"nowhere has no calibration.json: expected a folder"):
        main(["calibration", "small=nowhere", "--output", str(output)])


def test_accuracies_are_of_the_same_images():
    first = {"dataset": "animals", "split": "test", "images": 50, "top1": 0.8}
    with pytest.raises(
        ValueError, match="of animals, test, 50 images and of animals, test, 60 images: expected the sam"
    ):
        to_accuracies_table({"attention": first, "static keys": {**first, "images": 60}})
