"""The check of the mixers on a device, tried on the CPU, and that it sees what is wrong."""

import json

import pytest
import torch

from sk_transformers.benchmarks import numerics, speed
from sk_transformers.benchmarks.commands import main
from sk_transformers.benchmarks.measure import CPU
from sk_transformers.benchmarks.numerics import MIXERS, check_mixer, check_mixers, to_table
from sk_transformers.models.token_mixers import ATTENTION_MIXERS

from .test_speed import MIXER


def test_every_attention_mixer_is_checked():
    assert {kind for kind, _ in MIXERS.values()} == set(ATTENTION_MIXERS)


def test_the_mixers_are_right_on_the_cpu():
    checks = list(check_mixers(CPU, ("SKA", "CSKA", "static map")))
    assert [check.dtype for check in checks] == ["float32", "float16", "bfloat16"] * 3
    assert all(check.is_right for check in checks)
    kernels = {check.mixer: check.kernel for check in checks if check.dtype == "float32"}
    assert kernels == {
        "SKA": "_scaled_dot_product_flash_attention_for_cpu", "CSKA": "tiled_attention", "static map": "products",
    }  # fmt: skip
    assert to_table(checks).count("| right |") == 9


@pytest.mark.parametrize("where", [0, 1, 2])  # output, gradient of the tokens, of the first parameter
@pytest.mark.parametrize("error", [1.0001, float("nan")])
def test_a_wrong_number_is_seen(monkeypatch, where, error):
    def wrong(mixer, tokens, cotangent, implementation):
        values = run(mixer, tokens, cotangent, implementation)
        if implementation == "sdpa":
            values[where] = values[where] * error
        return values

    run = numerics.run
    monkeypatch.setattr(numerics, "run", wrong)
    check = check_mixer("SKA", torch.float32, CPU)
    assert not check.is_right
    assert "**wrong**: over 1e-05" in to_table([check])


def test_one_command_checks_and_measures_a_device(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "COMPARISONS", (MIXER,))
    monkeypatch.setattr("sk_transformers.benchmarks.measure.MATMUL_SIZES", (64,))
    file = tmp_path / "device.json"
    options = ["--device", "cpu", "--rounds", "1", "--batch_sizes", "3", "--modes", "eager", "--output", str(file)]
    main(["device", *options])
    figures = json.loads(file.read_text())
    assert len(figures["numerics"]) == 3 * len(MIXERS) and len(figures["results"]) == 2
    assert {"cpu", "versions"} <= set(figures["machine"]) and "commit" in figures["provenance"]
    printed = capsys.readouterr().out
    assert printed.index("| kernel |") < printed.index("**inference, eager**")


def test_a_device_that_is_not_here(capsys):
    missing = next(name for name in ("xpu", "cuda") if torch.accelerator.current_accelerator() != torch.device(name))
    with pytest.raises(SystemExit):
        main(["device", "--device", missing])
    assert f"{missing} is not on this machine, which has cpu" in capsys.readouterr().err
