import os

import pytest
import torch
from accelerate import Accelerator

from sk_transformers.devices import use_all_cores


@pytest.mark.parametrize(
    ("cores", "processes", "threads"), [({3}, "1", 1), ({0, 1, 2}, "1", 3), ({0, 1, 2, 3}, "2", 2), ({0}, "2", 1)]
)
def test_processes_share_the_cores_that_they_may_use(monkeypatch, cores, processes, threads):
    """More threads than cores wait for each other."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # by `accelerate launch`
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    use_all_cores(Accelerator(cpu=True))
    assert torch.get_num_threads() == threads
