"""What code may not name that strangers run."""

import pytest

from sk_transformers.hub.code_check import find_violation

WRONG = {
    "import pickle\npickle.load(stream)": "line 1 imports pickle",
    "import os": "line 1 imports os",
    "from pathlib import Path": "line 1 imports pathlib.Path",
    "import torch, socket": "line 1 imports socket",
    "from urllib.request import urlopen": "line 1 imports urllib.request.urlopen",
    "import einops": "line 1 imports einops",
    "from torch import hub": "line 1 imports torch.hub",
    "import torch.hub": "line 1 imports torch.hub",
    "from io import open as read": "line 1 imports io.open",
    "import torch\ntorch.load(name)": "line 2 uses torch.load",
    "x = 1\n\nclass A:\n    def f(self):\n        return open('/etc/passwd')": "line 5 uses open",
    "f = eval": "line 1 uses eval",
    "__import__('os')": "line 1 uses __import__",
}


@pytest.mark.parametrize("code", WRONG)
def test_code_that_reaches_out_is_found(code):
    assert find_violation(code) == WRONG[code]


@pytest.mark.parametrize("code", ["from .static_key import x", "import torch.nn as nn", "Image.open(x)", "my_open(x)"])
def test_code_that_keeps_to_itself_is_let_through(code):
    assert find_violation(code) is None
