"""The Triton kernel of CSKA, where there is no GPU."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from sk_transformers.benchmarks.commands import main

RUN = Path(__file__).parent / "support" / "triton_run.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="there is no triton for other systems")
def test_under_the_interpreter_it_computes_what_the_equations_say():
    done = subprocess.run([sys.executable, RUN], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_without_triton_a_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "sk_transformers.triton_kernel", raising=False)
    with pytest.raises(ImportError, match="takes the package triton, which is not installed: pip install triton"):
        importlib.import_module("sk_transformers.triton_kernel")


def test_the_benchmark_refuses_it_on_a_cpu():
    with pytest.raises(ValueError, match="--triton: that kernel is for CUDA devices, and --device is cpu"):
        main(["device", "--triton"])
