"""Every trained network of the zoo to the Hub: a repo for each, a Space with the demo, and a collection of them all.

Each repo is pushed as `push_folder` does it, in one commit, and nothing is done for what is there already. So where it
was cut off, the same call completes it. Collection and Space come last: they name only what the Hub has by then.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from huggingface_hub import Collection, HfApi, get_token

from ..pretrained import load_classifier
from ..zoo import TRAINED
from .errors import PushError, raise_push_errors
from .gather import find_examples
from .onnx_export import export_onnx
from .preflight import check_file, repo_files
from .push import add_namespace, check_target, push_folder
from .remote import Content, persist, upload
from .report import Gathering, Push, Target
from .trained import export_trained

SPACE = "static-key-attention"
TITLE = "Static key attention"
DESCRIPTION = (
    "Vision networks with static keys and their twins with attention, and a page that shows what they attend to."
)
# Writes a Space over networks, by the ids of their repos, with some pictures, to a folder: `demo.space.save_hub_space`.
WriteSpace = Callable[[Sequence[str], Path, Sequence[Path]], Path]
RepoType = Literal["model", "space"]


def push_all(
    org: str, write_space: WriteSpace, *, private: bool = False, dry_run: bool = False
) -> Iterator[Push | Gathering]:
    """Bring all trained networks to `ORG/NAME`, the demo over them to a Space, and both into a collection.

    Args:
        org: the namespace: an organization or a user.
        write_space: writes the Space's folder. It is not imported here, since the demo stands above this package.
        private: make private what is made now.
        dry_run: make, read, compare and report only; nobody need be logged in.

    Yields:
        What was done or would be, as soon as it is: a repo of each network, the Space, the collection.

    Raises:
        PreflightError: if a network is not fit to be published; those before it are.
        PushError: if the Hub refused, or could not be reached; the same call completes it later.
        ValueError: if `org` is not a name.
    """
    check_org(org)
    api = HfApi()
    with raise_push_errors(org):
        add_namespace(api, Target(f"{org}/{SPACE}"), dry_run)  # before the work, whether somebody is logged in
    with tempfile.TemporaryDirectory() as work:
        folders = [Path(work, name) for name in TRAINED]
        for folder in folders:
            export_trained(folder.name, folder)
            add_graphs(folder)
            yield push_folder(folder, f"{org}/{folder.name}", private=private, dry_run=dry_run)
        repos = [f"{org}/{name}" for name in TRAINED]
        pictures = next((found for folder in folders if (found := find_examples(folder, ()))), [])
        space = Target(f"{org}/{SPACE}", private, repo_type="space")
        yield push_space(api, write_space(repos, Path(work, "space"), pictures), space, dry_run)
    items: list[tuple[RepoType, str]] = [("model", repo) for repo in repos]
    items.append(("space", space.repo_id))
    yield gather(api, org, items, private, dry_run)


def check_org(org: str) -> None:
    """Raise ValueError unless repos can be in this namespace."""
    if "/" in org:
        raise ValueError(f"--all is {org!r}, expected the name of an organization or user, without '/'.")
    check_target(Target(f"{org}/{SPACE}"))


def add_graphs(folder: Path) -> None:
    """Add the folder `onnx/` to the repo folder of a classifier.

    The same weights make the same files, byte by byte: another push of them finds nothing to do.
    """
    model, image_processor = load_classifier(str(folder))
    export_onnx(model, image_processor, folder)


def push_space(api: HfApi, folder: Path, target: Target, dry_run: bool) -> Push:
    """Make a Space hold the files of a folder, in one commit.

    Raises:
        PreflightError: if a file is damaged, or holds a token.
        PushError: see `upload`.
    """
    files: dict[str, Content] = {}
    for path, file in repo_files(folder).items():
        if not path.endswith(".py"):  # a Space's code may use files, and is the Hub's to run
            check_file(path, file)
        files[path] = file
    return upload(api, files, target, dry_run=dry_run)


def gather(api: HfApi, org: str, items: Sequence[tuple[RepoType, str]], private: bool, dry_run: bool) -> Gathering:
    """Make the organization's collection, which is known by its title, hold these repos beside what it holds.

    Args:
        api, org, private, dry_run: see `push_all`.
        items: `(repo type, repo id)`.

    Raises:
        PushError: if it did not work, or the collection is public and `private` was asked for.
    """
    what = f"the collection {TITLE!r} of {org}"
    found = persist(lambda: find_collection(api, org), what)
    if private and found is not None and not found.private:
        raise PushError(f"{what} is there already and public: make it private first, or leave out --private.")
    missing = missing_items(found, items)
    done = Gathering(org, TITLE, found is None, missing, len(items) - len(missing), private, dry_run=dry_run)
    done.is_anonymous = get_token() is None
    if not dry_run and not done.is_empty:
        found = persist(lambda: fill_collection(api, org, items, private), what)
    done.url = None if found is None else found.url
    return done


def find_collection(api: HfApi, org: str) -> Collection | None:
    """Return the collection with all its items, of which lists of collections leave some out; None if there is none."""
    slugs = [collection.slug for collection in api.list_collections(owner=org) if collection.title == TITLE]
    return api.get_collection(slugs[0]) if slugs else None


def missing_items(collection: Collection | None, items: Sequence[tuple[RepoType, str]]) -> list[tuple[RepoType, str]]:
    """Return the items that a collection does not hold."""
    there = [] if collection is None else [(item.item_type, item.item_id) for item in collection.items]
    return [item for item in items if item not in there]


def fill_collection(api: HfApi, org: str, items: Sequence[tuple[RepoType, str]], private: bool) -> Collection:
    """Make one attempt of `gather`, from what is there now: an earlier one may have come half the way."""
    collection = find_collection(api, org)
    if collection is None:
        collection = api.create_collection(TITLE, namespace=org, description=DESCRIPTION, private=private)
    for repo_type, repo_id in missing_items(collection, items):
        api.add_collection_item(collection.slug, repo_id, repo_type)
    return collection
