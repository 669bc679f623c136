"""The measurement of scaling: that an exponent is one, and what is drawn."""

import json

import pytest
from PIL import Image

from sk_transformers.benchmarks import scaling
from sk_transformers.benchmarks.scaling import (
    Point,
    exponents,
    from_json,
    plot_throughput,
    to_exponent_table,
    to_json,
    to_table,
)


def line(axis, network, power):
    return [Point(axis, network, n, 1e-3 * n**power, 5 * n, 1000 * n**2) for n in (10, 20, 40)]


def test_exponents_are_slopes():
    rows = exponents(line("pixels", "a", 4) + line("batch", "a", 1))
    assert [(row["axis"], row["from"], row["to"]) for row in rows] == [("pixels", 20, 40), ("batch", 20, 40)]
    assert [row["seconds"] for row in rows] == pytest.approx([4, 1])
    assert all(row["mib"] == pytest.approx(1) and row["macs"] == pytest.approx(2) for row in rows)


@pytest.mark.slow
def test_every_axis_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(scaling, "HYBRIDS", ("skaformer-nano",))
    monkeypatch.setattr(scaling, "VIT", "skvit-nano-patch4-32")
    monkeypatch.setattr(scaling, "SIDE", 32)
    monkeypatch.setattr(scaling.timm, "create_model", lambda name: scaling.create_model("caformer-nano"))
    points = list(scaling.measure_scaling(1, sizes=(32, 64), batches=(1, 2), depths=(1, 2)))
    assert {(p.axis, p.network) for p in points} == {
        *(("pixels", name) for name in ("skaformer-nano, interpolate", "skaformer-nano, window", "timm caformer_s18")),
        *(("batch", name) for name in ("skaformer-nano", "skvit-nano-patch4-32")),
        ("depth", "skvit-nano-patch4-32"),
    }
    by_batch = [row for row in exponents(points) if row["axis"] == "batch"]
    assert all(row["macs"] == pytest.approx(1) for row in by_batch)
    assert to_table(points).count("\n| ") == len(points) + 1
    assert to_exponent_table(points).count("\n| ") == len(exponents(points)) + 1
    assert from_json(json.loads(json.dumps(to_json(points)))) == points
    plot_throughput(points, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").width > 500
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]
