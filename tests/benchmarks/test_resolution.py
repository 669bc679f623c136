"""The costs of images of several sizes."""

import pytest

from sk_transformers import create_config
from sk_transformers.benchmarks import resolution
from sk_transformers.benchmarks.resolution import Cost, measure_resolutions, to_row
from sk_transformers.complexity import count_macs


@pytest.mark.slow
def test_both_modes_are_measured_on_every_size(monkeypatch):
    monkeypatch.setattr(resolution, "SIZES", ((64, 64), (128, 96)))
    small, large = measure_resolutions("cskaformer-nano", rounds=1)
    assert [(cost.size, cost.mode) for cost in small + large] == [
        ((64, 64), "interpolate"), ((64, 64), "window"), ((128, 96), "interpolate"), ((128, 96), "window"),
    ]  # fmt: skip
    assert small[0].macs == small[1].macs  # at the trained size there is one window
    assert large[0].macs > large[1].macs  # keys on the whole map grow with its square
    for cost in small + large:
        config = create_config("cskaformer-nano", static_key_resolution=cost.mode)
        assert cost.macs == count_macs(config, cost.size)
    assert large[0].mib > small[0].mib > 0


def test_a_row():
    costs = tuple(Cost((800, 1333), mode, 4_160_000_000, 0.256, 12.6) for mode in ("interpolate", "window"))
    assert to_row(costs) == "| 800x1333 | 4.2 | 0.26 | 13 | 4.2 | 0.26 | 13 |"
