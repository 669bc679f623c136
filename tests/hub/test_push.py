"""Pushing against a Hub on which everything goes wrong that can."""

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from PIL import Image
from safetensors.torch import load_file, save_file

from sk_transformers.evaluation.pictures import PICTURE
from sk_transformers.hub.errors import PreflightError, PushError
from sk_transformers.hub.gather import add_card, collect_files
from sk_transformers.hub.preflight import repo_files
from sk_transformers.hub.push import push_folder
from sk_transformers.hub.remote import upload
from sk_transformers.hub.report import Target
from sk_transformers.training import results

from ..support.hub_server import ALICE, ALICE_READS, BOB, EXPIRED, TOKENS, Fault

FOREVER = 10**9
REQUESTS = [  # of a push into a new repo
    ("GET", "/api/models/org/tiny$"), ("POST", "/repos/create"), ("GET", "/refs"), ("GET", "/tree/"),
    ("POST", "/validate-yaml"), ("POST", "/preupload/"), ("POST", "/objects/batch"), ("PUT", "/lfs/whole/"),
    ("POST", "/lfs/verify"), ("POST", "/commit/"), ("POST", "/tag/"),
]  # fmt: skip
FAULTS = {
    "server error": {"status": 500},
    "bad gateway": {"status": 502, "message": ""},
    "too many requests": {"status": 429},
    "expired token": {"status": 401, "message": "Invalid credentials in Authorization header"},
    "no rights": {"status": 403},
    "conflict": {"status": 409},
    "changed since": {"status": 412},
    "cut": {"cut_after": 1},
    "answer lost": {"lose_answer": True},
}
PASSING = ("server error", "bad gateway", "too many requests", "conflict", "changed since", "cut", "answer lost")
LASTING = ("server error", "cut", "answer lost")


@pytest.fixture
def unchecked(monkeypatch):
    """Push without loading the folder in another process, which takes seconds."""
    monkeypatch.setattr("sk_transformers.hub.push.check_loading", lambda *arguments: [])


def push(folder, **options):
    """Push the folder to `org/tiny`, as it is."""
    target = Target("org/tiny", **options)
    return upload(HfApi(), files_of(folder, target), target)


@cache
def files_of(folder, target):
    return add_card(collect_files(folder), folder, target)


def assert_complete(repo, folder, revision="main"):
    there = repo.files(revision)
    assert set(there) == {".gitattributes", *repo_files(folder)}
    for name, file in repo_files(folder).items():
        if name != "README.md":
            assert there[name].content == file.read_bytes()


def one_sentence(error):
    text = str(error.value)
    return "\n" not in text and text.endswith((".", "?")) and ALICE not in text


def test_one_commit_with_everything(hub, repo_folder):
    done = push(repo_folder)
    repo = hub.model("org/tiny")
    assert_complete(repo, repo_folder)
    assert [commit.title for commit in repo.history()] == ["Add tiny", "initial commit"]
    assert repo.files()["model.safetensors"].lfs
    assert done.commit == repo.resolve("main")
    assert not repo.private


def test_nothing_to_change_makes_no_commit(hub, repo_folder):
    push(repo_folder)
    again = push(repo_folder)
    assert again.is_empty and "none: org/tiny holds all of it already" in str(again)
    assert len(hub.model("org/tiny").history()) == 2


def test_the_requests_below_are_those_of_a_push(hub, repo_folder):
    push(repo_folder, tag="v1")
    faults = [Fault(method, path, times=FOREVER) for method, path in REQUESTS]
    for request in hub.requests:
        method, path = request.split(" ", 1)
        if path != "/api/agent-harnesses":
            assert any(fault.takes({"method": method, "path": path}) for fault in faults), request
    assert all(fault.times < FOREVER for fault in faults)


@pytest.mark.slow
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request[1].strip("/$"))
def test_every_fault_of_every_request_is_survived(request_, hub, repo_folder):
    for name, times in [*((name, 1) for name in FAULTS), *((name, FOREVER) for name in LASTING)]:
        hub.repos.clear()
        hub.lfs.clear()
        hub.faults[:] = [Fault(*request_, times=times, **FAULTS[name])]
        done = False
        try:
            push(repo_folder, tag="v1")
            done = True
        except PushError as error:
            assert "\n" not in str(error) and ALICE not in str(error) and str(error).endswith("."), name
        if times == 1:
            assert done == (name in PASSING), name

        if ("models", "org/tiny") in hub.repos:
            repo = hub.model("org/tiny")
            assert len(repo.history()) in (1, 2), name
            if len(repo.history()) == 2:
                assert_complete(repo, repo_folder)  # main is as before, or whole
        hub.faults.clear()
        push(repo_folder, tag="v1")
        repo = hub.model("org/tiny")
        assert_complete(repo, repo_folder)
        assert len(repo.history()) == 2, name
        assert repo.resolve("v1") == repo.resolve("main")


def test_parts_of_large_files_are_sent_again(hub, repo_folder):
    hub.part_size = 10_000
    hub.faults.append(Fault("PUT", "/lfs/part/.*/2", cut_after=5_000))
    push(repo_folder)
    assert_complete(hub.model("org/tiny"), repo_folder)
    assert sum("/lfs/part/" in request for request in hub.requests) == 4  # three, and one of them again


def test_what_was_uploaded_is_not_uploaded_again(hub, repo_folder):
    hub.faults.append(Fault("POST", "/commit/", status=403))
    with pytest.raises(PushError):
        push(repo_folder)
    push(repo_folder)
    assert sum("/lfs/whole/" in request for request in hub.requests) == 1


def test_a_commit_in_between_is_not_lost(hub, repo_folder):
    hub.create("models", "org/tiny", "somebody")
    repo = hub.model("org/tiny")
    card = "---\nlicense: mit\n---\n\n# Mine\n"
    hub.faults.append(Fault("POST", "/commit/", before=lambda: repo.edit("README.md", card)))
    push(repo_folder)
    assert b"# Mine" in repo.files()["README.md"].content
    assert [commit.author for commit in repo.history()] == ["alice", "somebody", "somebody"]


def test_an_edited_card_is_merged(hub, repo_folder, tmp_path):
    push(repo_folder)
    repo = hub.model("org/tiny")
    card = repo.files()["README.md"].content.decode()
    edited = card.replace("It is there to be trained", "I made it for ants").replace(
        "\n## License", "\n## Thanks\n\nTo the ants.\n\n## License"
    )
    repo.edit("README.md", edited.replace("tags:\n", "tags:\n- insects\n"))
    folder = shutil.copytree(repo_folder, tmp_path / "tiny")
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(text.replace("Apache 2.0.", "Apache 2.0!").replace("are drawn", "were drawn"))
    done = push(folder)

    merged = repo.files()["README.md"].content.decode()
    assert "I made it for ants" in merged and "To the ants." in merged and "- insects" in merged
    assert "Apache 2.0!" in merged and "were drawn" in merged
    assert done.kept == ["tags:", "## Intended use and limits"]
    assert repo.history()[0].title == "Update tiny"
    assert done.card == {"#": "changed", "## License": "changed"}
    assert "card       introduction changed" in str(done)
    assert "kept       tags of the card" in str(done) and "kept       Intended use and limits of the" in str(done)
    assert push(folder).is_empty


def test_a_card_written_by_hand_stays(hub, repo_folder):
    hub.create("models", "org/tiny", "somebody").edit("README.md", "---\nlicense: mit\n---\n\n# Mine\n\nAll mine.\n")
    push(repo_folder)
    card = hub.model("org/tiny").files()["README.md"].content.decode()
    assert "license: mit" in card and "# Mine\n\nAll mine." in card
    assert "## What it is" in card and "library_name: transformers" in card
    assert push(repo_folder).is_empty


def test_weights_of_another_name_go(hub, repo_folder):
    repo = hub.create("models", "org/tiny", "somebody")
    repo.edit("model-00001-of-00002.safetensors", "old")
    repo.edit("model.safetensors.index.json", "{}")
    repo.edit("notebook.ipynb", "{}")
    done = push(repo_folder)
    assert done.deleted == ["model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    assert set(repo.files()) == {".gitattributes", "notebook.ipynb", *repo_files(repo_folder)}


def test_graphs_go_with_the_weights_that_they_were_made_of(hub, repo_folder, tmp_path):
    push(repo_folder)
    hub.model("org/tiny").edit("onnx/model.onnx", "of these weights")
    assert push(repo_folder).is_empty
    folder = shutil.copytree(repo_folder, tmp_path / "tiny")
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    assert push(folder).deleted == ["onnx/model.onnx"]


def test_the_card_speaks_of_the_files_that_are_there(hub, repo_folder, tmp_path):
    folder = shutil.copytree(repo_folder, tmp_path / "tiny")
    push_files(folder)
    assert "runs `handler.py` as it is" in card_on(hub) and "onnx" not in card_on(hub).lower()
    (folder / "handler.py").unlink()
    (folder / "onnx").mkdir()
    measured = {"dataset": "/data/bugs", "split": "validation", "images": 9}
    sizes = {"onnx/model.onnx": 3 * 2**20, "onnx/model_quantized.onnx": 2**20}
    report = {"bytes": sizes, "top1": {**measured, "onnx/model.onnx": 0.51234, "onnx/model_quantized.onnx": 0.5}}
    (folder / "onnx" / "export.json").write_text(json.dumps(report))
    push_files(folder)
    card = card_on(hub)
    assert "handler.py" not in card and "Inference Endpoints." not in card
    assert "accuracies are those on the 9 images of bugs, validation" in card
    assert "| `onnx/model.onnx` | 3.0 MiB | 0.5123 |" in card and "| `onnx/model_quantized.onnx` | 1.0 MiB |" in card
    assert '["org/tiny", "main"]' in card


def push_files(folder):
    target = Target("org/tiny")
    return upload(HfApi(), add_card(collect_files(folder), folder, target), target)


def card_on(hub):
    return hub.model("org/tiny").files()["README.md"].content.decode()


@pytest.mark.slow
def test_pictures_in_the_folder_are_the_examples_unless_others_are_given(hub, repo_folder, tmp_path):
    folder = shutil.copytree(repo_folder, tmp_path / "tiny")
    (folder / "examples").mkdir()
    Image.new("RGB", (20, 20), "red").save(folder / "examples" / "a-red-one.png")
    Image.new("RGB", (20, 20), "blue").save(tmp_path / "blue_one.jpg")
    push_folder(folder, "org/tiny")
    assert "src: examples/a-red-one.png\n  example_title: a red one\n" in card_on(hub)
    assert "examples/a-red-one.png" in hub.model("org/tiny").files()
    assert push_folder(folder, "org/tiny").is_empty
    push_folder(folder, "org/other", examples=[tmp_path / "blue_one.jpg"])
    there = hub.model("org/other").files()
    assert [name for name in there if name.startswith("examples/")] == ["examples/blue_one.png"]
    assert "| blue one |" in there["README.md"].content.decode()


def test_pull_request(hub, repo_folder):
    hub.create("models", "bob/tiny", "bob")
    hub.faults.append(Fault("POST", "/commit/", lose_answer=True))
    target = Target("bob/tiny", create_pr=True)  # alice may not write there
    files = add_card(collect_files(repo_folder), repo_folder, target)
    for _ in range(2):
        done = upload(HfApi(), files, target)
        assert done.url == f"{hub.url}/bob/tiny/discussions/1"
    repo = hub.model("bob/tiny")
    assert len(repo.pull_requests) == 1 and list(repo.files()) == [".gitattributes"]
    assert_complete(repo, repo_folder, "refs/pr/1")


def test_branch(hub, repo_folder):
    hub.faults.append(Fault("POST", "/branch/", lose_answer=True))
    done = push(repo_folder, revision="try/this")
    repo = hub.model("org/tiny")
    assert_complete(repo, repo_folder, "try/this")
    assert list(repo.files()) == [".gitattributes"]
    assert "try/this created from main" in str(done)
    assert push(repo_folder, revision="try/this").is_empty


def test_tags_stay_where_they_are(hub, repo_folder, tmp_path):
    push(repo_folder, tag="v1")
    tagged = hub.model("org/tiny").resolve("v1")
    push(repo_folder, tag="v1")
    folder = shutil.copytree(repo_folder, tmp_path / "tiny")
    (folder / "LICENSE").write_text("other")
    with pytest.raises(PushError, match="the tag v1 of org/tiny is on another commit: choose a new one") as error:
        push(folder, tag="v1")
    assert one_sentence(error)
    assert hub.model("org/tiny").resolve("v1") == tagged == hub.model("org/tiny").resolve("main")
    with pytest.raises(PushError, match="v1 is not a branch of org/tiny"):
        push(folder, revision="v1")


def test_private_repos_are_for_their_owners(hub, repo_folder, monkeypatch):
    push(repo_folder, private=True)
    assert hub.model("org/tiny").private
    assert push(repo_folder, private=True).is_empty
    monkeypatch.setenv("HF_TOKEN", BOB)
    with pytest.raises(PushError, match="the token may not write to org/tiny"):
        push(repo_folder)


def test_a_public_repo_is_not_taken_for_a_private_one(hub, repo_folder):
    repo = hub.create("models", "org/tiny", "somebody")
    with pytest.raises(PushError, match="org/tiny is there already and public: make it private first") as error:
        push(repo_folder, private=True)
    assert one_sentence(error) and len(repo.history()) == 1


@pytest.mark.parametrize(
    "token, said",
    [
        (EXPIRED, "does not accept the token .*: it may have expired; log in anew by `hf auth login`"),
        (ALICE_READS, "your token may only read: make one that may write to org/tiny"),
        (BOB, "the token may not write to org/tiny .*: choose another namespace"),
        (None, "there is no token to push with: log in by `hf auth login`, or set HF_TOKEN"),
    ],
)
def test_tokens_without_the_right(token, said, hub, repo_folder, unchecked, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PushError, match=said) as error:
        push_folder(repo_folder, "org/tiny")
    assert one_sentence(error) and not any(token in str(error.value) for token in (*TOKENS, EXPIRED))
    assert not hub.repos


def test_offline_is_said(hub, repo_folder, unchecked, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match="HF_HUB_OFFLINE is set, and nothing can be pushed offline: unset it"):
        push_folder(repo_folder, "org/tiny")


def test_dry_run_reads_only(hub, repo_folder, unchecked):
    report = str(push_folder(repo_folder, "org/tiny", dry_run=True, private=True, tag="v1"))
    assert not hub.repos and not any(request.startswith(("POST", "PUT")) for request in hub.requests)
    size = (repo_folder / "model.safetensors").stat().st_size
    assert "org/tiny would be created, private" in report and f"model.safetensors, {size:,} bytes" in report
    assert "v1 would be on it" in report

    push_folder(repo_folder, "org/tiny", private=True)
    hub.model("org/tiny").edit("LICENSE", "mine")
    hub.requests.clear()
    report = str(push_folder(repo_folder, "org/tiny", dry_run=True, revision="try"))
    others = len(list(repo_folder.iterdir())) - 1
    assert [line.split()[:2] for line in report.splitlines()] == [
        ["branch", "try"], ["changed", "LICENSE,"], ["unchanged", str(others)], ["commit", "one"],
    ]  # fmt: skip
    assert not any(request.startswith(("POST", "PUT")) for request in hub.requests)


@pytest.mark.slow
def test_a_dry_run_needs_no_login_and_says_what_the_card_gets(hub, repo_folder, unchecked, monkeypatch, tmp_path):
    push(repo_folder)
    repo = hub.model("org/tiny")
    card = repo.files()["README.md"].content.decode()
    repo.edit("README.md", card.replace("It is there to be trained", "I made it for ants"))
    folder = shutil.copytree(repo_folder, tmp_path / "tiny")
    (folder / "README.md").write_text((folder / "README.md").read_text().replace("Apache 2.0.", "Apache 2.0!"))
    (folder / "examples").mkdir()
    Image.new("RGB", (20, 20), "red").save(folder / "examples" / "a-red-one.png")
    monkeypatch.setattr("sk_transformers.hub.push.check_loading", lambda *arguments: [[{"label": "ant", "score": 0.9}]])
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    done = push_folder(folder, "org/tiny", dry_run=True)
    assert done.card["## License"] == "changed" and done.card["## Examples"] == done.card["widget:"] == "added"
    assert "## Intended use and limits" not in done.card
    assert "card       Examples would be added\n" in str(done)
    assert "org/other would be created, unless it is private: log in" in str(
        push_folder(folder, "org/other", dry_run=True)
    )
    with pytest.raises(PushError, match="there is no token to push with"):
        push_folder(folder, "tiny", dry_run=True)  # in whose namespace?


def test_a_name_alone_is_in_the_own_namespace(hub, repo_folder, unchecked):
    push_folder(repo_folder, "tiny")
    card = hub.model("alice/tiny").files()["README.md"].content.decode()
    assert 'model="alice/tiny"' in card and 'revision="main"' in card


def test_a_run_brings_its_plots_and_evaluations(hub, repo_folder, unchecked, tmp_path):
    shutil.copytree(repo_folder, tmp_path / "run" / "model")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    for picture in (tmp_path / "run" / "curves.png", evaluation / "confusion.png", tmp_path / "photo.png"):
        Image.new("RGB", (700, 20), "red").save(picture)
    figures = {"images": 9, "top1": 0.51234, "top5": 1.0, "loss": 0.7, "calibration_error": 0.01}
    record = {"dataset": "data/bugs", "split": "validation", "images_per_second": 12.4, "hardware": "an abacus"}
    (evaluation / "evaluation.json").write_text(json.dumps(record | figures))
    for folder in (tmp_path / "run", evaluation, tmp_path / "run" / "model" / "own"):  # on terms that are not known
        (folder / PICTURE).parent.mkdir(parents=True)
        Image.new("RGB", (700, 20), "blue").save(folder / PICTURE)
    options = {"evaluations": [evaluation], "tag": "v2"}
    push_folder(tmp_path / "run", "org/tiny", **options)
    repo = hub.model("org/tiny")
    files = repo.files("v2")
    card = files["README.md"].content.decode()
    assert {"curves.png", "evaluation/bugs-validation-confusion.png"} <= set(files)
    assert not any("pictures" in file or "predictions" in file for file in files) and "predictions.png" not in card
    assert "![Curves](curves.png)" in card and "](evaluation/bugs-validation-confusion.png)" in card
    assert "| bugs, validation | 9 | 0.5123 | 1.0000 | 0.7000 | 0.0100 |" in card
    assert "value: 0.5123" in card and "12 images per second and process (an abacus)" in card
    assert 'revision="v2"' in card
    order = [card.index(f"\n## {name}") for name in ("How to use it", "Evaluation", "Size and speed", "Plots", "Lic")]
    assert order == sorted(order)
    assert push_folder(tmp_path / "run", "org/tiny", **options).is_empty


@pytest.mark.parametrize(
    "options, said",
    [
        ({"create_pr": True, "tag": "v1"}, "--create_pr opens a pull request against main: leave out --revision"),
        ({"revision": "refs/heads/x"}, "--revision is 'refs/heads/x', expected the name of a branch"),
        ({"examples": ["nothing.png"]}, "nothing.png is not an image"),
        ({"evaluations": ["nothing"]}, "nothing has no evaluation.json that sk-transformers evaluate wrote"),
        ({"tag": "my tag"}, "--tag is 'my tag', expected letters, digits, '-', '_', '.' and '/'"),
        ({"revision": "a..b"}, "--revision is 'a..b', expected letters, digits"),
        ({"repo_id": "a/b/c"}, "the repo is 'a/b/c', expected namespace/name of letters, digits"),
        ({"repo_id": ""}, "the repo is '', expected namespace/name"),
    ],
)
def test_arguments_that_do_not_fit(options, said, repo_folder):
    with pytest.raises(ValueError, match=said) as error:
        push_folder(repo_folder, **{"repo_id": "org/tiny", **options})
    assert one_sentence(error)


@pytest.mark.parametrize(
    "record, said",
    [
        ("{", r"metrics.json is not JSON \(.*\): restore it, or make it again"),
        ("[]", "metrics.json holds a list, expected an object"),
        ('{"fingerprint": "x"}', "fingerprint is 'x', expected numbers"),
    ],
)
def test_a_run_whose_record_is_damaged(record, said, repo_folder, tmp_path):
    shutil.copytree(repo_folder, tmp_path / "run" / "model")
    (tmp_path / "run" / "metrics.json").write_text(record)
    with pytest.raises(PreflightError, match=said) as error:
        push_folder(tmp_path / "run", "org/tiny")
    assert one_sentence(error)


@pytest.mark.parametrize("record", ["{", "[]", '{"dataset": "x", "split": "test"}'])
def test_evaluations_that_are_none(record, repo_folder, tmp_path):
    (tmp_path / "evaluation.json").write_text(record)
    with pytest.raises(PreflightError, match="evaluation.json") as error:
        push_folder(repo_folder, "org/tiny", evaluations=[tmp_path])
    assert one_sentence(error)


def test_a_push_that_fails_after_training_says_that_the_run_is_done(monkeypatch):
    def fail(*_, **__):
        raise PushError("the Hub is in trouble.")

    monkeypatch.setattr(results, "push_folder", fail)
    with pytest.raises(PushError) as error:
        results.push(Path("runs/tiny"), "org/tiny", private=True)
    assert str(error.value) == (
        "the Hub is in trouble. The run is done and all of it is in runs/tiny; to push it:"
        " sk-transformers push runs/tiny org/tiny --private"
    )


def test_folders_that_are_none(tmp_path):
    with pytest.raises(PreflightError, match="is neither a run's folder .* nor a repo folder"):
        push_folder(tmp_path, "org/tiny")
