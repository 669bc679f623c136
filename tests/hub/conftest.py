import pytest
from transformers import ViTImageProcessor
from transformers.utils import logging

from sk_transformers.hub import export

from ..support.hub_client import talk_to
from ..support.hub_server import HubServer
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
def hub(monkeypatch, tmp_path_factory):
    """A Hub on the loopback that the client in this process talks to, as alice, without waiting between attempts."""
    with HubServer() as server:
        talk_to(server, monkeypatch, tmp_path_factory.mktemp("hub-cache"))
        yield server
