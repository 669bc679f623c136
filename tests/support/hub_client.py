"""The Hub's client in this process, talking to a server of the tests."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from .hub_server import ALICE, HubServer


def talk_to(server: HubServer, patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Send the client to a server, as alice, without waiting between attempts, until the patch is undone.

    Nothing is left of the server of another test, which had repositories of the same names: neither files in the cache
    nor transformers' own client, which keeps the address that it had first.
    """
    files = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    patch.setattr(constants, "ENDPOINT", server.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # the floor has none
    patch.setattr("time.sleep", lambda seconds: None)
    patch.setenv("HF_TOKEN", ALICE)
