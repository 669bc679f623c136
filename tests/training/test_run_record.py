"""What a run says of itself."""

import subprocess
import sys
from importlib.metadata import version

from ..support.training import QUICK, SCRIPTS, finetune, metrics_of


def test_a_run_says_how_it_was_made(tmp_path, monkeypatch):
    options = [*QUICK, "--max_train_steps", "1", "--seed", "7", "--output_dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/sk-transformers", "train", *options])
    metrics = metrics_of(finetune(*options))
    assert metrics["command"] == f"sk-transformers train {' '.join(options[:-1])} run"
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=SCRIPTS, capture_output=True, text=True)
    assert (metrics["commit"] or "").removesuffix("+changes") == git.stdout.strip()  # none outside of a checkout
    assert metrics["versions"]["torch"] == version("torch") and set(metrics["versions"]) > {"transformers", "timm"}
    assert metrics["seed"] == 7 and metrics["arguments"]["learning_rate"] == 2e-3  # the recipe's
    assert metrics["data"] == {"name": "digits", "revision": None, "train_images": 200, "validation_images": 60,
                               "labels": [str(digit) for digit in range(10)]}  # fmt: skip
