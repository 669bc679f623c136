"""All trained networks to the Hub and back: repos, a Space and a collection, on a connection that breaks."""

import contextlib
import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, constants, snapshot_download
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, ViTImageProcessor, pipeline

from sk_transformers import create_model
from sk_transformers.cli.push import main
from sk_transformers.demo.space import save_browser_space
from sk_transformers.hub import export
from sk_transformers.hub.errors import PreflightError, PushError
from sk_transformers.hub.push_all import TITLE, gather, push_all

from ..support.browser import needs_library
from ..support.hub_client import talk_to
from ..support.hub_server import ALICE, ALICE_READS, EXPIRED, TOKENS, Collection, Fault, HubServer

NAMES = ("skvit-nano-patch4-32", "caformer-nano", "vit-nano-patch4-32")
IDS = [f"org/{name}" for name in NAMES]
ITEMS = [*(("model", repo_id) for repo_id in IDS), ("space", "org/static-key-attention")]
TOLD = NAMES[:2]  # of the story at the end; each takes seconds
TOLD_IDS, TOLD_ITEMS = IDS[:2], [*ITEMS[:2], ITEMS[3]]
FOREVER = 10**9
SERVE = """
import runpy, sys
sys.modules["sk_transformers"] = None  # importing it now fails
sys.path.insert(0, "")
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def repo_folders(tmp_path_factory):
    """Repo folders by names of the zoo, with weights in 16 bits and a picture, as trained networks have them."""
    root = tmp_path_factory.mktemp("trained")
    labels = {index: f"class {index}" for index in range(10)}
    for name in NAMES:
        model = create_model(name, id2label=labels, label2id={label: i for i, label in labels.items()})
        size = model.config.image_size
        export(model.half(), ViTImageProcessor(size={"height": size, "width": size}), root / name)
        (root / name / "examples").mkdir()
        picture = Image.frombytes("RGB", (60, 40), bytes(i * 31 % 256 for i in range(7200)))
        picture.save(root / name / "examples" / "stripes.png")
    return root


def stand_in(monkeypatch, folder, names=NAMES):
    """Take the folders here for the zoo's trained networks."""
    export_trained = lambda name, target: Path(shutil.copytree(folder / name, target))  # noqa: E731
    monkeypatch.setattr("sk_transformers.hub.push_all.export_trained", export_trained)
    monkeypatch.setattr("sk_transformers.hub.push_all.TRAINED", names)


@pytest.fixture
def quick(monkeypatch, repo_folders, tmp_path):
    """Push without graphs and without loading the folders in another process, which takes seconds."""
    folder = Path(shutil.copytree(repo_folders, tmp_path / "trained"))
    stand_in(monkeypatch, folder)
    monkeypatch.setattr("sk_transformers.hub.push_all.add_graphs", lambda folder: None)
    monkeypatch.setattr("sk_transformers.hub.push.check_loading", lambda *_: [[{"label": "class 1", "score": 0.5}]])
    return folder


def write_space(models, folder, examples):
    """A Space in small."""
    folder.mkdir()
    (folder / "app.py").write_text("\n".join(models))
    (folder / "README.md").write_text(f"---\nsdk: gradio\n---\n\n{len(examples)}\n")
    return folder


def push(**options):
    return list(push_all("org", write_space, **options))


def items_of(hub):
    (collection,) = hub.collections.values()
    return collection.items


def is_change(request):
    reads = ("/validate-yaml", "/preupload/", "/objects/batch", "/lfs/verify")
    return not request.startswith(("GET", "HEAD")) and not any(part in request for part in reads)


def test_everything_is_there_and_a_second_time_nothing_is_done(hub, quick):
    done = push()
    assert [commit.title for name in IDS for commit in hub.model(name).history()] == [
        title for name in NAMES for title in (f"Add {name}", "initial commit")
    ]
    space = hub.repos["spaces", "org/static-key-attention"]
    assert space.sdk == "gradio" and [c.title for c in space.history()] == [
        "Add static-key-attention",
        "initial commit",
    ]
    assert space.files()["app.py"].content.decode().split() == IDS
    assert items_of(hub) == ITEMS
    (collection,) = hub.collections.values()
    assert collection.title == TITLE and not collection.private
    assert [str(report).split()[:2] for report in done] == [
        *(["repo", repo_id] for repo_id in IDS), ["space", "org/static-key-attention"], ["collection", "Static"],
    ]  # fmt: skip
    assert str(done[-1]).splitlines()[1] == f"new        model {IDS[0]}"
    assert done[-1].url == f"{hub.url}/collections/{collection.slug}"
    assert f"see        {hub.url}/spaces/org/static-key-attention/commit/" in str(done[-2])

    hub.requests.clear()
    again = push()
    assert all(report.is_empty for report in again) and not [r for r in hub.requests if is_change(r)]
    assert f"none: {IDS[0]} holds all of it already" in str(again[0])
    assert "is there\nunchanged  4 repos" in str(again[-1])


def test_cards_name_the_repo_that_they_are_in(hub, quick):
    push()
    for repo_id in IDS:
        card = hub.model(repo_id).files()["README.md"].content.decode()
        assert f'model="{repo_id}"' in card and "src: examples/stripes.png" in card
        assert not any(other in card for other in IDS if other != repo_id)


def test_a_dry_run_lists_everything_and_does_nothing(hub, quick, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    report = "\n".join(map(str, push(dry_run=True)))
    assert not hub.repos and not hub.collections and all(request.startswith("GET") for request in hub.requests)
    for repo_id in (*IDS, "org/static-key-attention"):
        assert f"{repo_id} would be created, unless it is private" in report
    assert "collection Static key attention, of org, would be created, unless it is private: log in" in report
    assert "new        space org/static-key-attention" in report and "new        app.py, " in report


def test_only_what_changed_is_pushed(hub, quick):
    push()
    weights = load_file(quick / NAMES[1] / "model.safetensors")
    save_file(
        {name: tensor + 1 for name, tensor in weights.items()}, quick / NAMES[1] / "model.safetensors", {"format": "pt"}
    )
    first, second, third, *others = push()
    assert list(second.changed) == ["model.safetensors"] and second.commit == hub.model(IDS[1]).resolve("main")
    assert all(report.is_empty for report in (first, third, *others))
    assert [len(hub.model(repo_id).history()) for repo_id in IDS] == [2, 3, 2]


def test_it_goes_on_where_it_was_cut_off(hub, quick):
    hub.faults.append(Fault("POST", f"/{IDS[1]}/commit/", status=500, times=FOREVER))
    done = []
    with pytest.raises(PushError, match="the Hub is in trouble .* run the same command again later") as error:
        done.extend(push_all("org", write_space))
    assert "\n" not in str(error.value)
    assert [len(repo.history()) for repo in hub.repos.values()] == [2, 1] and not hub.collections
    hub.faults.clear()
    assert [report.is_empty for report in push()] == [True, False, False, False, False]
    assert [len(repo.history()) for repo in hub.repos.values()] == [2, 2, 2, 2] and items_of(hub) == ITEMS


def test_a_network_that_is_not_fit_stops_there(hub, quick):
    (quick / NAMES[1] / "config.json").write_text("{")
    with pytest.raises(PreflightError, match="config.json is not JSON"):
        push()
    assert [repo_id for _, repo_id in hub.repos] == [IDS[0]]


def test_a_space_that_was_edited_is_not_overwritten(hub, quick):
    push()
    space = hub.repos["spaces", "org/static-key-attention"]
    space.edit("README.md", "---\nsdk: gradio\npinned: true\n---\n\n3\n")
    space.edit("notes.txt", "mine")
    (quick / NAMES[0] / "examples" / "other.png").write_bytes((quick / NAMES[0] / "examples/stripes.png").read_bytes())
    push()
    assert b"pinned: true" in space.files()["README.md"].content and "notes.txt" in space.files()


def test_private_is_for_all_of_it(hub, quick):
    push(private=True)
    assert all(repo.private for repo in hub.repos.values()) and all(c.private for c in hub.collections.values())
    assert all(report.is_empty for report in push(private=True))


REQUESTS = [("GET", "/collections$"), ("GET", "/collections/org/"), ("POST", "/collections$"), ("POST", "/items$")]
FAULTS = {
    "server error": {"status": 500},
    "bad gateway": {"status": 502, "message": ""},
    "too many requests": {"status": 429},
    "no rights": {"status": 403},
    "conflict": {"status": 409},
    "cut": {"cut_after": 1},
    "answer lost": {"lose_answer": True},
}


@pytest.fixture
def with_repos(hub):
    for kind, repo_id in ITEMS:
        hub.create(f"{kind}s", repo_id, "alice", sdk="gradio" if kind == "space" else None)
    return hub


@pytest.mark.parametrize("request_", REQUESTS, ids=" ".join)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("times", [1, FOREVER])
def test_faults_leave_one_collection(with_repos, request_, fault, times):
    hub, arguments = with_repos, (HfApi(), "org", ITEMS, False, False)
    hub.create("models", "org/other", "alice")
    slug = "org/static-key-attention-0"
    if request_ == ("GET", "/collections/org/"):
        hub.collections[slug] = Collection(slug, TITLE, False, items=[("model", "org/other")])
    hub.faults.append(Fault(*request_, **FAULTS[fault], times=times))
    try:
        gather(*arguments)
        assert fault != "no rights"
        assert times == 1 or (fault, *request_) == ("answer lost", "POST", "/collections$")  # it is found, then
    except PushError as error:
        assert times == FOREVER or fault == "no rights"
        assert "\n" not in str(error) and ALICE not in str(error) and str(error).endswith(".")
    hub.faults.clear()
    gather(*arguments)
    assert gather(*arguments).is_empty
    assert sorted(items_of(hub)) == sorted(ITEMS + [("model", "org/other")] * (slug in hub.collections))


def test_items_are_added_where_they_are_missing(with_repos):
    hub = with_repos
    for slug, title in (("org/static-key-attention-0", TITLE), ("org/others-1", "Others"), ("bob/x-2", TITLE)):
        hub.collections[slug] = Collection(slug, title, False)
    hub.create("models", "org/other", "alice")
    held = [("model", "org/other"), *ITEMS[:3]]
    hub.collections["org/static-key-attention-0"].items.extend(held)
    done = gather(HfApi(), "org", ITEMS, False, False)  # of which lists show the first four
    assert done.added == ITEMS[3:] and done.unchanged == 3 and not done.creates
    assert {slug: c.items for slug, c in hub.collections.items()} == {
        "org/static-key-attention-0": [*held, ITEMS[3]], "org/others-1": [], "bob/x-2": [],
    }  # fmt: skip


def test_a_public_collection_is_not_taken_for_a_private_one(with_repos):
    gather(HfApi(), "org", ITEMS, False, False)
    with pytest.raises(PushError, match="the collection 'Static key attention' of org is there already and public"):
        gather(HfApi(), "org", ITEMS, True, False)


@pytest.mark.parametrize(
    "token, said",
    [
        (EXPIRED, "the Hub does not accept the token"),
        (ALICE_READS, "your token may only read: make one that may write to org/"),
        (None, "there is no token to push with"),
    ],
)
def test_who_may_not_push_is_told_before_the_work(token, said, hub, quick, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("sk_transformers.hub.push_all.export_trained", None)
    with pytest.raises(PushError, match=said) as error:
        push()
    assert not any(token in str(error.value) for token in (*TOKENS, EXPIRED))


@pytest.mark.parametrize("org", ["org/x", "", "-", "a b"])
def test_names_that_no_organization_has(org, quick):
    with pytest.raises(ValueError, match="expected"):
        next(push_all(org, write_space))


@pytest.mark.parametrize(
    "options, said",
    [
        ("", "FOLDER and REPO_ID are missing: give both, or --all ORG for the trained networks of the zoo"),
        ("folder", "FOLDER and REPO_ID are missing"),
        ("--all org folder", "--all goes with --private and --dry_run only: leave out FOLDER"),
        ("--all org --tag v1 --create_pr", "leave out --create_pr and --tag"),
        ("--all org --examples a.png --dry_run", "leave out --examples"),
    ],
)
def test_options_that_do_not_go_together(options, said, capsys):
    with pytest.raises(SystemExit) as error:
        main(options.split())
    assert error.value.code == 2 and said in capsys.readouterr().err


@pytest.fixture(scope="module")
def story(repo_folders, tmp_path_factory):
    """All of it by the command over a bad connection, twice; then a stranger, in a process without this package."""
    home = tmp_path_factory.mktemp("home")
    shutil.copyfile(repo_folders / NAMES[0] / "examples" / "stripes.png", home / "image.png")
    outputs = []
    with HubServer() as hub, pytest.MonkeyPatch.context() as patch:
        talk_to(hub, patch, home / "client")
        stand_in(patch, repo_folders, TOLD)
        hub.faults += [
            Fault("POST", "/repos/create", status=409),
            Fault("PUT", "/lfs/", cut_after=1000),
            Fault("POST", f"/{IDS[0]}/commit/", lose_answer=True),
            Fault("POST", f"/{IDS[1]}/commit/", status=502, message=""),
            Fault("POST", "/spaces/org/static-key-attention/commit/", lose_answer=True),
            Fault("POST", "/api/collections$", lose_answer=True),
            Fault("POST", "/items$", status=503),
            Fault("POST", "/items$", lose_answer=True),
        ]
        commits = []
        for _ in range(2):
            with contextlib.redirect_stdout(io.StringIO()) as output:
                main(["--all", "org"])
            outputs.append(output.getvalue())
            commits.append([len(repo.history()) for repo in hub.repos.values()])
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(home / "cache"), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_TEMP_DIR": str(home / "gradio"), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        stranger = subprocess.run(
            [sys.executable, Path(__file__).with_name("load_collection.py"), "org", home],
            env=environment, cwd=home, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert stranger.returncode == 0, stranger.stderr
        yield hub, home, environment, outputs, commits


@pytest.mark.slow
def test_a_bad_connection_costs_no_commit_and_a_second_run_makes_none(story):
    hub, _, _, (first, second), commits = story
    assert not any(fault.times for fault in hub.faults)  # each of them happened
    assert commits == [[2, 2, 2]] * 2 and items_of(hub) == TOLD_ITEMS
    blocks = [block.splitlines() for block in first.strip().split("\n\n")]
    assert [block[0].split()[1] for block in blocks] == [*TOLD_IDS, "org/static-key-attention", "Static"]
    assert all(f"none: {repo_id} holds all of it already" in second for _, repo_id in TOLD_ITEMS)
    assert not any(token in first + second for token in TOKENS)


@pytest.mark.slow
def test_a_stranger_uses_every_network(story, repo_folders):
    report = json.loads((story[1] / "report.json").read_text())
    assert list(report) == TOLD_IDS
    for name, repo_id in zip(TOLD, TOLD_IDS):
        model = AutoModelForImageClassification.from_pretrained(repo_folders / name)
        processor = ViTImageProcessor.from_pretrained(repo_folders / name)
        classify = pipeline("image-classification", model=model, image_processor=processor)
        expected = classify(Image.open(story[1] / "image.png"), top_k=3)
        found = report[repo_id]
        assert [answer["label"] for answer in found["answers"]] == [answer["label"] for answer in expected]
        assert found["class"] == ("SKFormerModel" if "former" in name else "SKViTModel")
        assert found["features"] == [1, 64] and found["onnx"] in {answer["label"] for answer in expected}


@pytest.mark.slow
def test_every_repo_is_complete(story, repo_folders):
    hub = story[0]
    for name, repo_id in zip(TOLD, TOLD_IDS):
        files = hub.model(repo_id).files()
        assert {"handler.py", "decoding.py", "LICENSE", "examples/stripes.png"} <= {*files}
        assert {"onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/export.json"} <= {*files}
        assert files["model.safetensors"].content == (repo_folders / name / "model.safetensors").read_bytes()
        assert "`onnx/model_quantized.onnx`" in files["README.md"].content.decode()
    for repo in hub.repos.values():
        assert not any(ALICE.encode() in file.content for file in repo.files().values())


@pytest.mark.slow
def test_the_space_shows_the_networks_of_the_hub(story, open_page, tmp_path):
    hub, home, environment, *_ = story
    folder = snapshot_download(
        "org/static-key-attention", repo_type="space", endpoint=hub.url, token=False, local_dir=tmp_path / "space"
    )
    card = yaml.safe_load(Path(folder, "README.md").read_text().split("---")[1])
    assert card["models"] == TOLD_IDS and card["sdk"] == "gradio" and card["app_file"] == "app.py"
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        address = next(found[0] for line in server.stdout if (found := re.search(r"http://127.0.0.1:\d+", line)))
        page = open_page(address)
        page.wait_for_selector("#image input[type=file]", state="attached")
        page.set_input_files("#image input[type=file]", home / "image.png")
        page.wait_for_selector("#attention img")
        answers = [section.inner_text().split("\n") for section in page.query_selector_all("#classes section")]
        server.terminate()
    report = json.loads((home / "report.json").read_text())
    assert [answer[1] for answer in answers] == list(TOLD)
    for repo_id, (_, _, best, *_) in zip(TOLD_IDS, answers):
        assert best == report[repo_id]["answers"][0]["label"]


@needs_library
@pytest.mark.slow
def test_the_browser_runs_the_graph_of_the_hub(story, open_page, tmp_path):
    hub, home, *_ = story
    repo = snapshot_download(IDS[1], endpoint=hub.url, token=False, local_dir=tmp_path / "repo")
    save_browser_space(repo, tmp_path / "page", [home / "image.png"])
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "page")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = open_page(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_function("/Ready|could not/.test(document.getElementById('status').textContent)")
        page.click("#examples button:nth-child(1)")
        page.wait_for_selector("#classes li")
        shown = page.inner_text("#classes").split("\n")
        server.shutdown()
    assert shown[0] == json.loads((home / "report.json").read_text())[IDS[1]]["onnx"]
