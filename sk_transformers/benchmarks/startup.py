"""How long it takes to import the package, and to load a network from its file, beside transformers."""

import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoModelForImageClassification, ViTForImageClassification

from ..zoo import create_model
from .baselines import transformers_vit_base
from .measure import median_ratio, time_interleaved

IMPORT = """
import time
import transformers
start = time.perf_counter()
import sk_transformers
print(time.perf_counter() - start)
"""


def import_seconds(rounds: int) -> float:
    """Return the median time of `import sk_transformers` in a new process that has imported transformers."""
    return statistics.median(
        float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout)
        for _ in range(rounds)
    )


def loading_seconds(rounds: int) -> tuple[float, float, float]:
    """Return the median seconds to load SKViT-Base and transformers' ViT-Base from safetensors, and their ratio.

    The ratio is over 1 where ours is faster, as everywhere.
    """
    with TemporaryDirectory() as folder:
        ours, baseline = Path(folder) / "ours", Path(folder) / "baseline"
        create_model("skvit-base-patch16-224").save_pretrained(ours)
        transformers_vit_base().save_pretrained(baseline)
        seconds = time_interleaved(
            [
                lambda: AutoModelForImageClassification.from_pretrained(ours),
                lambda: ViTForImageClassification.from_pretrained(baseline),
            ],
            rounds,
        )
    own, others = seconds
    return statistics.median(own), statistics.median(others), median_ratio(others, own)


def to_text(rounds: int) -> str:
    """Measure, and return two lines."""
    ours, baseline, ratio = loading_seconds(rounds)
    return (
        f"import sk_transformers, after transformers: {import_seconds(rounds) * 1000:.0f} ms\n"
        f"loading SKViT-Base: {ours:.3f} s; transformers' ViT-Base: {baseline:.3f} s; ratio {ratio:.2f}"
    )
