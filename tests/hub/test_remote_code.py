"""The code that an exported folder brings to strangers: no network, no files but its own, no pickle, nothing hidden."""

import json
import subprocess
import sys

import pytest
from transformers import ConvNextImageProcessor

from sk_transformers.hub import export
from sk_transformers.hub.code_check import find_violation
from sk_transformers.hub.errors import PreflightError
from sk_transformers.hub.preflight import check_files, repo_files

from ..support.small_models import small_model

ALONE = "loads the folder that it lies in, with local_files_only, and downloads nothing that a revision could pin"
NO_PASSWORD = "takes the name of a token mixer for a password, since it is kept under a name with 'token' in it"
EXPLAINED = {  # what bandit finds in the files, once in each
    ("handler.py", "B615"): ALONE,
    ("configuration_skvit.py", "B107"): NO_PASSWORD,
    ("configuration_skswin.py", "B107"): NO_PASSWORD,
    ("configuration_skcvt.py", "B107"): NO_PASSWORD,
}


@pytest.fixture(scope="module", params=["skvit", "skcait", "cskaformer", "skswin", "skcvt"])
def repo(request, tmp_path_factory):
    processor = ConvNextImageProcessor(size={"shortest_edge": 32})
    return export(small_model(request.param), processor, tmp_path_factory.mktemp("code") / request.param)


def bandit(folder):
    """What bandit finds, as `(file, test)`, and the names of the files that it read."""
    done = subprocess.run(
        [sys.executable, "-m", "bandit", "--recursive", "--format", "json", "--quiet", "."],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["errors"] == []
    found = {(result["filename"].removeprefix("./"), result["test_id"]) for result in report["results"]}
    return found, {name.removeprefix("./") for name in report["metrics"]} - {"_totals"}


def test_a_scanner_finds_nothing_but_what_is_explained(repo):
    found, read = bandit(repo)
    code = {file.name for file in repo.rglob("*.py")}
    assert read == code and "handler.py" in code
    assert found == {(file, test) for file, test in EXPLAINED if file in code}
    assert "nosec" not in "".join((repo / file).read_text() for file in code)  # nothing is kept from it


def test_the_code_of_a_repo_keeps_to_itself(repo, tmp_path):
    for file in repo.rglob("*.py"):
        assert find_violation(file.read_text()) is None, file
    check_files(repo, repo_files(repo))


@pytest.mark.parametrize(
    "code, said",
    [
        ("import requests\n", "static_key.py: line 1 imports requests, and code that strangers run should need torch"),
        ("def f(:\n", "static_key.py is not Python"),
    ],
)
def test_a_repo_whose_code_does_not_is_not_pushed(code, said, repo):
    file = repo / "static_key.py"
    before = file.read_text()
    file.write_text(code)
    with pytest.raises(PreflightError, match=said):
        check_files(repo, repo_files(repo))
    file.write_text(before)


def test_the_scanner_does_find_what_is_wrong(tmp_path):
    (tmp_path / "wrong.py").write_text(
        "import pickle\nimport urllib.request\n\nimport torch\n\npickle.loads(b'')\nurllib.request.urlopen('ftp://x')\n"
        "torch.load('weights')\neval('1')\n"
    )
    assert {test for _, test in bandit(tmp_path)[0]} >= {"B301", "B310", "B614", "B307"}
