"""Layers by hand, and the greedy order of a table."""

import pytest

from sk_transformers.calibration.selection import Replacement, greedy_order, parse_layers


def test_layers_are_ranges_and_numbers():
    assert parse_layers("1-3, 10,2", list(range(12)), 12) == [1, 2, 3, 10]
    assert parse_layers("0", [0], 12) == [0]


@pytest.mark.parametrize(
    "text, message",
    [
        ("1-", "'1-' is no layer"),
        ("3-1", "'3-1' is no layer"),
        ("x", "'x' is no layer"),
        ("", "'' is no layer"),
        ("12", "there is no layer 12; the network has 0 to 11"),
        ("2", "layer 2 has no attention to replace"),
    ],
)
def test_other_layers_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_layers(text, [layer for layer in range(12) if layer != 2], 12)


def test_greedy_order_is_by_error_for_what_is_saved():
    def row(layer, kind, error, saved_macs):
        return {"layer": layer, "kind": kind, "error": error, "saved_macs": saved_macs}

    table = [
        row(0, "static_key", 0.02, 10),  # 0.0020
        row(0, "static_map", 0.03, 30),  # 0.0010, the better one of this layer
        row(1, "static_map", 0.06, 30),  # 0.0020
        row(1, "static_key", 0.01, 10),  # 0.0010, after layer 0, which ties
        row(2, "conv_static_key", 0.0, -5),  # saves nothing
        row(3, "static_map", 0.001, 30),  # the first
    ]
    assert greedy_order(table) == [
        Replacement(3, "static_map"),
        Replacement(0, "static_map"),
        Replacement(1, "static_key"),
    ]
