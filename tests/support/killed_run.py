"""`scripts/finetune.py` whose first process gets a signal before a step; both come before its options."""

import os
import runpy
import sys
from pathlib import Path

from sk_transformers.training import loop

train_step, last, number = loop.train_step, int(sys.argv.pop(1)), int(sys.argv.pop(1))


def signalled_at_last(setup, batches, step):
    if step == last and setup.accelerator.is_main_process:
        os.kill(os.getpid(), number)
    return train_step(setup, batches, step)


loop.train_step = signalled_at_last
sys.argv[0] = str(Path(__file__).parents[2] / "scripts" / "finetune.py")
runpy.run_path(sys.argv[0], run_name="__main__")
