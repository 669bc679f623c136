import pytest
from huggingface_hub import constants
from transformers import ViTImageProcessor
from transformers.utils import logging

from sk_transformers.hub import export

from ..support.hub_server import ALICE, HubServer
from ..support.small_models import small_model

LABELS = {0: "ant", 1: "bee", 2: "cicada"}


@pytest.fixture(scope="session", autouse=True)
def quiet():
    logging.disable_progress_bar()


@pytest.fixture(scope="session")
def repo_folder(tmp_path_factory):
    """A repo folder; a test that changes it takes a copy."""
    model = small_model("skvit", id2label=LABELS, label2id={label: index for index, label in LABELS.items()})
    size = {"height": 16, "width": 16}
    return export(model, ViTImageProcessor(size=size), tmp_path_factory.mktemp("export") / "tiny")


@pytest.fixture
def hub(monkeypatch):
    """A Hub on the loopback that the client in this process talks to, as alice, without waiting between attempts."""
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        files = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.setenv("HF_TOKEN", ALICE)
        yield server
