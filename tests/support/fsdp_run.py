"""`scripts/finetune.py` on the CPU, which accelerate takes for several GPUs: it does FSDP on nothing else."""

import runpy
import sys
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import DistributedType

PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
sys.argv[0] = str(Path(__file__).parents[2] / "scripts" / "finetune.py")
runpy.run_path(sys.argv[0], run_name="__main__")
