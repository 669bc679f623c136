"""How long it takes to begin: to import the package, and to load a network from its file, beside transformers."""

import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoModelForImageClassification, ViTForImageClassification

from ..zoo import create_model
from .baselines import transformers_vit_base
from .measure import median_ratio, take_turns

IMPORT = """
import time
import transformers
start = time.perf_counter()
import sk_transformers
print(time.perf_counter() - start)
"""


def import_seconds(rounds: int) -> float:
    """Median time of `import sk_transformers` in a new process that has imported transformers."""
    return statistics.median(
        float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout)
        for _ in range(rounds)
    )


def loading_seconds(rounds: int) -> tuple[float, float, float]:
    """Median times to load SKViT-Base and transformers' ViT-Base from safetensors, and the ratio of the second's."""
    with TemporaryDirectory() as folder:
        ours, peer = Path(folder) / "ours", Path(folder) / "peer"
        create_model("skvit-base-patch16-224").save_pretrained(ours)
        transformers_vit_base().save_pretrained(peer)
        seconds = take_turns(
            [
                lambda: AutoModelForImageClassification.from_pretrained(ours),
                lambda: ViTForImageClassification.from_pretrained(peer),
            ],
            rounds,
        )
    return *map(statistics.median, seconds), median_ratio(seconds[1], seconds[0])
