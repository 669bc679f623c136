"""Backbones for dense prediction beside their peers."""

import json

import pytest
import torch
from transformers import AutoBackbone

from sk_transformers import create_config
from sk_transformers.benchmarks.commands import main
from sk_transformers.benchmarks.dense import Cost, backbones_of, from_json, to_row, to_tables
from sk_transformers.complexity import count_macs

COST = Cost("caformer", (800, 1333), "float32", 23_000_000, 188_030_000_000, 8.125, 1.0, 120.0, 0.0)


@pytest.mark.parametrize(
    "name, labels",
    [
        ("timm:caformer_s18", ["timm caformer_s18"]),
        ("transformers:swin", ["transformers swin"]),
        ("caformer-nano", ["caformer-nano"]),
        ("cskaformer-nano", ["cskaformer-nano, interpolate", "cskaformer-nano, window"]),
        ("skswin-tiny", ["skswin-tiny"]),  # its windows are its own
    ],
)
def test_every_backbone_gives_the_maps_of_four_stages(name, labels):
    builds = backbones_of(name)
    assert list(builds) == labels
    for build in builds.values():
        with torch.device("meta"):
            outputs = build().eval()(torch.empty(1, 3, 64, 96))
        maps = getattr(outputs, "feature_maps", outputs)
        assert [map.shape[2:] for map in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def kept_bytes_by_hand(name, size):
    """Four bytes for each number of the static keys of every layer, on the grids of an image of this size."""
    config = create_config(name)
    numbers = 0
    for stage, (mixer, width, depth) in enumerate(zip(config.token_mixers, config.hidden_sizes, config.depths)):
        positions = (size[0] // 2 ** (stage + 2)) * (size[1] // 2 ** (stage + 2))
        conv_heads = width // config.head_dims[stage]
        of_a_key = {"static_key": width, "conv_static_key": 9 * width + conv_heads}.get(mixer, 0)
        numbers += depth * positions * of_a_key
    return 4 * numbers


def test_backbones_take_turns_on_padded_images(tmp_path, capsys):
    name, file = "cskaformer-nano", tmp_path / "dense.json"
    options = ["--sizes", "60x90", "128", "--rounds", "1", "--cpu_time", "--profile", "--output", str(file)]
    main(["dense", "caformer-nano", name, *options])
    (run,) = json.loads(file.read_text())["runs"]
    costs = from_json(run)
    labels = ["caformer-nano", f"{name}, interpolate", f"{name}, window"]
    sizes = [((60, 90), (64, 96)), ((128, 128), (128, 128))]
    assert [(cost.size, cost.network) for cost in costs] == [(size, label) for size, _ in sizes for label in labels]
    assert [cost.ratio for cost in costs if cost.network == "caformer-nano"] == [1, 1]
    for i, (_, padded) in enumerate(sizes):
        attention, resized, windows = costs[3 * i : 3 * i + 3]
        assert attention.kept_mib == windows.kept_mib == 0
        assert resized.kept_mib == pytest.approx(
            kept_bytes_by_hand(name, padded) / 2**20, abs=1e-3
        )  # of this size alone
        config = create_config(name, static_key_resolution="window")
        config.out_features = config.stage_names[1:]
        assert windows.macs == count_macs(config, padded, AutoBackbone)
        assert windows.macs < resized.macs
        assert windows.parameters == resized.parameters == AutoBackbone.from_config(config).num_parameters()
    assert all(cost.seconds > 0 and cost.mib > 0 for cost in costs)
    assert all(cost.operators is None for cost in costs[:3])
    assert all(cost.operators["matrix products"] > 0 for cost in costs[3:])
    printed = capsys.readouterr().out
    assert to_tables(costs) in printed and "Time of the CPU: others used the machine." in printed
    main(["dense", "caformer-nano", "--sizes", "64", "--rounds", "1", "--output", str(file), "--append"])
    assert [run["cpu_time"] for run in json.loads(file.read_text())["runs"]] == [True, False]


def test_rows_have_ratios_to_the_first():
    ours = Cost("ours, window", (800, 1333), "float32", 25_900_000, 99_430_000_000, 4.0, 2.034, 60.0, 0.0)
    keys = Cost("ours", (800, 1333), "float32", 25_900_000, 399_460_000_000, 20.3, 0.4, 150.0, 56.3)
    assert to_row(ours, COST) == "| ours, window | 25.9 | 99.4 | 4.00 | 2.03 | 60 | 0.50 |  |"
    assert to_row(keys, COST) == "| ours | 25.9 | 399.5 | 20.3 | 0.40 | 150 | 1.25 | 56 |"
    table = to_tables([COST, ours])
    assert table.startswith("**800x1333, float32**\n\n| backbone |") and "operators" not in table


@pytest.mark.parametrize(
    "name, message",
    [
        ("timm:x9", "timm:x9: timm has no model of this name"),
        ("transformers:vit", "transformers:vit: expected a kind of backbone of transformers with 4 stages"),
        ("transformers:x9", "transformers:x9: expected a kind of backbone"),
        ("skvit-nano-patch4-32", "skvit-nano-patch4-32: expected a network of 4 stages"),
        ("skcvt-nano", "skcvt-nano: expected a network of 4 stages"),
    ],
)
def test_what_has_no_four_stages_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        backbones_of(name)
