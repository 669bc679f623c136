import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may need the network

import pytest
import torch

from .support.browser import chromium, open_page  # noqa: F401 (fixtures; here, since a process runs one Chromium)


@pytest.fixture(autouse=True)
def deterministic():
    """One thread, since the tests share the CPU, and the same random numbers whatever ran before."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.compiler.reset()  # what other tests compiled counts against a function's limit
