import multiprocessing
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may need the network

import datasets
import pytest
import torch

from .support.browser import chromium, open_page  # noqa: F401 (fixtures; here, since a process runs one Chromium)

datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0.5  # seconds of each pass over a stream of files: 10, else


@pytest.fixture(autouse=True)
def deterministic():
    """One thread, since the tests share the CPU, and the same random numbers whatever ran before."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.compiler.reset()  # what other tests compiled counts against a function's limit


@pytest.fixture(autouse=True)
def no_process_stays():
    """What a test forks ends with it: it would hold the pipes of Chromium, which then never ends."""
    yield
    processes = multiprocessing.active_children()
    for process in processes:
        process.kill()
    assert not processes
