"""The wheel, installed where there is no checkout, does the quick start: train, evaluate, export and push."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from ..support.hub_server import ALICE, HubServer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout, in which no earlier build is left."""
    sources = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sk_transformers", sources / "sk_transformers", ignore=leave_out)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", sources, sources)
    return next(sources.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder far from the checkout, and what calls a program of a new environment in it.

    The dependencies are those of this environment, the package is the wheel's alone.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    site = next((folder / "env" / "lib").glob("python*/site-packages"))
    dependencies = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("\n".join(dependencies))

    def call(program, *arguments, **variables):
        return run(folder / "env" / "bin" / program, *arguments, folder=folder, **variables)

    return folder, call


def run(*command, folder=None, **variables):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}
    done = subprocess.run(list(map(str, command)), cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_what_is_read_and_not_what_is_for_maintainers(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    data = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "sk_transformers").rglob("*")
        if file.is_file() and file.suffix != ".pyc" and "benchmarks" not in file.parts
    }
    assert data <= names
    assert "sk_transformers/py.typed" in data
    for part in ("recipes/digits", "recipes/accelerate/fsdp", "hub/templates/card", "demo/browser/index"):
        assert any(name.startswith(f"sk_transformers/{part}.") for name in names)
    assert not [name for name in names if name.startswith(("sk_transformers/benchmarks", "tests", "scripts", "docs"))]
    assert "Classifier: Typing :: Typed" in metadata


def test_the_quick_start(installed):
    folder, call = installed
    where = call("python", "-c", "import sk_transformers; print(sk_transformers.__file__)").strip()
    assert Path(where).is_relative_to(folder)

    call("sk-transformers", "train", "--max_train_steps", "2", "--max_train_samples", "64", "--max_eval_samples", "32",
         "--output_dir", "run")  # fmt: skip
    card = (folder / "run" / "model" / "README.md").read_text()
    assert "sk-transformers train --max_train_steps 2" in card

    call("sk-transformers", "evaluate", "--model", "run/model", "--dataset", "digits", "--max_eval_samples", "32",
         "--output_dir", "evaluation")  # fmt: skip
    assert 0 <= json.loads((folder / "evaluation" / "evaluation.json").read_text())["top1"] <= 1

    call("sk-transformers", "export-onnx", "run/model", "onnx")
    assert list((folder / "onnx").rglob("*.onnx"))

    with HubServer() as hub:
        said = call("sk-transformers", "push", "run", "alice/digits", "--dry_run", HF_ENDPOINT=hub.url, HF_TOKEN=ALICE,
                    HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1", HF_HOME=str(folder / "cache"))  # fmt: skip
        assert not hub.repos
    assert "alice/digits" in said and "model.safetensors" in said


def test_accelerate_takes_a_configuration_from_the_wheel(installed):
    folder, call = installed
    file = call("sk-transformers", "list", "--accelerate", "two_cpus").strip()
    assert Path(file).is_relative_to(folder)
    printed = call("python", "-m", "accelerate.commands.launch", "--config_file", file, "--num_processes", "1",
                   "-m", "sk_transformers.cli.train", "--help", ACCELERATE_USE_CPU="true")  # fmt: skip
    assert printed.startswith("usage: sk-transformers train")
