"""From a folder to the Hub and back by the programs that users run, each in a process of its own."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

from ..support.hub_server import ALICE, Fault, HubServer

SCRIPTS = Path(__file__).parents[2] / "scripts"
pytestmark = pytest.mark.slow


class Machine:
    """A home of its own, and programs that run there against the server."""

    def __init__(self, home: Path, hub: HubServer):
        self.home, self.outputs = home, []
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(home / "cache"), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN_PATH": str(home / "login" / "token"),
        }  # fmt: skip
        (home / "login").mkdir()
        (home / "login" / "token").write_text(ALICE)

    def run(self, script, *arguments):
        done = subprocess.run(
            [sys.executable, script, *map(str, arguments)], env=self.environment, cwd=self.home,
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        self.outputs.append(done.stdout + done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return done


@pytest.fixture(scope="module")
def story(repo_folder, tmp_path_factory):
    """A private repo, used by a stranger, and fine-tuned into another one that is pushed with the run and again.

    Over a bad connection, whose faults each have to happen: the answers are those of a good one.
    """
    home = tmp_path_factory.mktemp("machine")
    Image.frombytes("RGB", (60, 40), bytes(i * 31 % 256 for i in range(7200))).save(home / "image.png")
    with HubServer() as hub:
        machine = Machine(home, hub)
        hub.faults += [
            Fault("PUT", "/lfs/", cut_after=1000),
            Fault("POST", "/org/tiny/commit/", lose_answer=True),
            Fault("GET", "/resolve/", status=503),
            Fault("POST", "/repos/create", status=409),
            Fault("POST", "/org/digits/commit/", status=502),
        ]
        options = ["--private", "--tag", "v1", "--examples", "image.png"]
        push = machine.run(SCRIPTS / "push_to_hub.py", repo_folder, "org/tiny", *options)
        stranger = machine.run(Path(__file__).with_name("load_from_hub.py"), "org/tiny", "v1", home)
        finetune = machine.run(
            SCRIPTS / "finetune.py", "--model", "org/tiny", "--dataset", "digits", "--max_train_steps", 2,
            "--output_dir", "run", "--push_to_hub", "org/digits",
        )  # fmt: skip
        again = machine.run(SCRIPTS / "push_to_hub.py", "run", "org/digits")
        yield hub, machine, {"push": push, "stranger": stranger, "finetune": finetune, "again": again}


def test_everything_ran(story):
    for name, done in story[2].items():
        assert done.returncode == 0, f"{name}: {done.stderr}"


def test_the_push_says_what_it_did(story):
    lines = story[2]["push"].stdout.splitlines()
    assert lines[0] == "repo       org/tiny created, private"
    assert "tag        v1 on it" in lines
    assert not any(fault.times for fault in story[0].faults)  # each of them happened


def test_a_stranger_gets_the_model(story, repo_folder):
    hub, machine, _ = story
    report = json.loads((machine.home / "report.json").read_text())
    model = AutoModelForImageClassification.from_pretrained(repo_folder).eval()
    with torch.no_grad():
        logits = model(torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)).logits[0]
    assert report["logits"] == pytest.approx(logits.tolist(), rel=1e-4)
    assert report["class"] == "SKViTModel"
    assert report["files"] == sorted({name.split("/")[0] for name in hub.model("org/tiny").files("v1")})
    assert report["refused_without_token"]


def test_the_widget_shows_what_the_model_answers(story):
    hub, machine, _ = story
    files = hub.model("org/tiny").files("v1")
    card = files["README.md"].content.decode()
    answers = json.loads((machine.home / "report.json").read_text())["answers"]
    assert "src: examples/image.png" in card and "examples/image.png" in files
    for answer in answers:
        assert f"- label: {answer['label']}\n    score: {round(answer['score'], 4)}\n" in card


def test_a_run_from_the_hub_goes_back_to_it(story):
    hub, machine, _ = story
    repo = hub.model("org/digits")
    card = repo.files()["README.md"].content.decode()
    metrics = json.loads((machine.home / "run" / "metrics.json").read_text())
    assert f"value: {round(metrics['best']['top1'], 4)}" in card and 'model="org/digits"' in card
    assert "no trained weights" not in card and "--model org/tiny" in card
    assert (
        "see        " in story[2]["finetune"].stderr and "none: org/digits holds all of it" in story[2]["again"].stdout
    )
    assert len(repo.history()) == 2 and not repo.private


def test_the_card_of_a_run_shows_what_the_model_answers_without_being_asked(story, tmp_path):
    hub, machine, _ = story
    files = hub.model("org/digits").files()
    widget = yaml.safe_load(files["README.md"].content.decode().split("---")[1])["widget"]
    classify = pipeline("image-classification", model=str(machine.home / "run" / "model"))
    assert [example["example_title"] for example in widget] == [f"a {n} drawn for this card" for n in (2, 3, 7)]
    for example in widget:
        image = Image.open(io.BytesIO(files[example["src"]].content))
        answers = classify(image, top_k=3)
        assert [one["label"] for one in example["output"]] == [answer["label"] for answer in answers]
        assert [one["score"] for one in example["output"]] == pytest.approx([a["score"] for a in answers], abs=1e-4)
    # and before the push
    assert yaml.safe_load((machine.home / "run/model/README.md").read_text().split("---")[1])["widget"] == widget


def test_the_token_appears_nowhere(story):
    hub, machine, _ = story
    assert not any(ALICE in output for output in machine.outputs)
    for repo in hub.repos.values():
        assert not any(ALICE.encode() in file.content for file in repo.files().values())
    for file in machine.home.rglob("*"):
        if file.is_file() and file.parent.name != "login":
            assert ALICE.encode() not in file.read_bytes(), file
