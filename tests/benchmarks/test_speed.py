"""The comparison of speed, with networks that are small enough for a test."""

import json
from functools import partial

import pytest
import timm
import torch

from sk_transformers import create_config, create_model, list_models
from sk_transformers.benchmarks.baselines import ReferenceMixer
from sk_transformers.benchmarks.speed import COMPARISONS, Comparison, compare, from_json, to_json
from sk_transformers.benchmarks.speed_report import to_summary, to_table
from sk_transformers.complexity import count_macs
from sk_transformers.models.attention_options import AttentionOptions
from sk_transformers.models.static_key import StaticKeyAttention

NANO = Comparison(
    "skvit-nano-patch4-32",
    "vit-nano-patch4-32",
    partial(create_model, "skvit-nano-patch4-32", num_labels=1000),
    lambda _: create_model("vit-nano-patch4-32", num_labels=1000),
    (3, 32, 32),
    (2, 1),
    ("inference", "training"),
)
OPTIONS = AttentionOptions(8, (2, 2), 2, 4)
MIXER = Comparison("mixer", "plain", partial(StaticKeyAttention, OPTIONS), ReferenceMixer, (4, 8), (3,))


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    monkeypatch.setattr("sk_transformers.benchmarks.measure.MATMUL_SIZES", (64,))


@pytest.mark.slow
def test_every_combination_is_measured():
    dtypes = ["float32", "bfloat16"]
    results = list(compare([NANO, MIXER], ["inference", "training"], ["eager"], dtypes, [1, 2, 3], rounds=1))
    measured = [(r.ours, r.task, r.dtype, r.batch) for r in results]
    assert len(set(measured)) == len(measured) == 2 * 2 * 2 + 2
    for result in results:
        assert all(figure > 0 for figure in (*result.images_per_second, *result.memory_mib, result.ratio))
        assert (result.fraction_of_peak is None) == (result.task == "training")
        if result.ours == NANO.name:
            counted = [count_macs(create_config(name, num_labels=1000)) for name in (NANO.name, NANO.baseline_name)]
            assert list(result.macs) == counted
    assert from_json(json.loads(json.dumps(to_json(results)))) == results
    summary = to_summary(results)
    assert summary.count("\n| skvit-nano-patch4-32, batch 2") == 2 and "| mixer, batch 3 | plain |" in summary
    table = to_table(results)
    assert table.count("| skvit-nano-patch4-32 |") == 8 and "**training, eager**" in table


@pytest.mark.slow
def test_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    (result,) = compare([MIXER], ["inference"], ["compiled"], ["float32"], [3], rounds=1)
    assert result.mode == "compiled" and "**inference, compiled**" in to_table([result])


def test_what_is_compared_exists():
    for comparison in COMPARISONS:
        assert " mixer" in comparison.name or comparison.name in list_models()
        if comparison.baseline_name.startswith("timm "):
            assert timm.is_model(comparison.baseline_name.removeprefix("timm "))
