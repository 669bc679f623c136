"""A data set on the Hub, which `scripts/finetune.py` takes from a server that speaks its protocol."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset

from ..support.hub_server import Commit, File, HubServer
from ..support.image_files import write_images

SCRIPTS = Path(__file__).parents[2] / "scripts"
CARD = """---
configs:
- config_name: pets
  data_files:
  - {split: fit, path: pets/fit-*.parquet}
  - {split: held, path: pets/held-*.parquet}
- config_name: other
  data_files: other/*.parquet
---
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """`org/animals` with two configurations; the tag `v1` is the commit before the last."""
    folder = tmp_path_factory.mktemp("animals")
    table = load_dataset("imagefolder", data_dir=str(write_images(folder / "images", images=12)), split="train")
    files = {"README.md": File(CARD.encode())}
    for name, shard in (("fit-0", 0), ("fit-1", 1), ("held-0", 2)):
        table.shard(3, shard).to_parquet(folder / "shard.parquet")
        files[f"pets/{name}.parquet"] = File((folder / "shard.parquet").read_bytes(), lfs=True)
    with HubServer() as server:
        repo = server.create("datasets", "org/animals", "alice")
        repo.refs["refs/tags/v1"] = repo.add("refs/heads/main", Commit(files, "Add pets", "alice"))
        repo.add("refs/heads/main", Commit({"README.md": File(b"nothing is left")}, "Remove all", "alice"))
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["--streaming", "--steps_per_epoch", "2"]])
def test_a_data_set_of_the_hub(hub, tmp_path, how):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1",
                    "HF_HUB_DISABLE_TELEMETRY": "1", "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    options = ["--model", "skvit-nano-patch4-32", "--dataset", "org/animals", "--dataset_config", "pets",
               "--train_split", "fit", "--validation_split", "held", "--dataset_revision", "v1",
               "--per_device_train_batch_size", "8", "--num_train_epochs", "1", "--output_dir", "run",
               *how]  # fmt: skip
    done = subprocess.run([sys.executable, SCRIPTS / "finetune.py", *options], env=environment, cwd=tmp_path,
                          capture_output=True, text=True, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "run" / "metrics.json").read_text())["data"]
    assert data["labels"] == ["cat", "dog"] and data["validation_images"] == 8
    assert data["train_images"] == (None if how else 16)
    assert data["revision"] == hub.repos["datasets", "org/animals"].resolve("v1")
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "datasets:\n- org/animals\n" in card
