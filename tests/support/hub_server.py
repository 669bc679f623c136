"""A Hub on the loopback, in memory, that speaks the protocol of the official client and fails when a test tells it to.

    with HubServer() as hub:
        os.environ["HF_ENDPOINT"] = hub.url
        hub.faults.append(Fault("POST", "/commit/", status=503))

It has repos of all three kinds, private ones, branches, tags, pull requests, LFS uploads in one part or several, range
requests, collections and the checks of card metadata that need no network. It has neither Xet nor pages, and runs no
Space.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import uvicorn
import yaml
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
LFS_SUFFIXES = (".safetensors", ".bin", ".onnx", ".png")
SDKS = ("gradio", "docker", "static")
COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")  # of a Space's card
SHOWN_IN_LISTS = 4  # items of a collection
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()


@dataclass(frozen=True)
class User:
    """Who a token belongs to: what `role` may be is `"read"` or `"write"`, and `orgs` are organizations to write to."""

    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and namespace in (self.name, *self.orgs)


# Tokens have the Hub's form, so that a test may look for them by it.
ALICE, ALICE_READS, BOB, EXPIRED = (f"hf_{name}{'x' * 24}" for name in ("alice", "reads", "bob", "expired"))
TOKENS = {ALICE: User("alice", orgs=("org",)), ALICE_READS: User("alice", "read", ("org",)), BOB: User("bob")}


@dataclass(frozen=True)
class File:
    """A file as a commit has it; `lfs` says whether git holds a pointer to it only."""

    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @property
    def oid(self) -> str:
        """What git calls the blob."""
        blob = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    @property
    def size(self) -> int:
        return len(self.content)


@dataclass
class Commit:
    files: dict[str, File]
    title: str
    author: str
    parent: str | None = None
    description: str = ""
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"))


@dataclass
class Repo:
    """A repo: `refs` by their full names (`refs/heads/main`, `refs/tags/v1`, `refs/pr/1`)."""

    kind: str
    id: str
    private: bool
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    pull_requests: list[dict[str, Any]] = field(default_factory=list)
    sdk: str | None = None  # of a Space

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    @property
    def url(self) -> str:
        return f"/{'' if self.kind == 'models' else self.kind + '/'}{self.id}"

    def add(self, ref: str, commit: Commit) -> str:
        """Add a commit and move the ref to it."""
        oid = hashlib.sha1(f"{len(self.commits)} {self.id} {commit}".encode()).hexdigest()
        self.commits[oid] = commit
        self.refs[ref] = oid
        return oid

    def full_ref(self, revision: str) -> str | None:
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in names if name in self.refs), None)

    def resolve(self, revision: str) -> str:
        ref = self.full_ref(revision)
        oid = self.refs[ref] if ref else revision
        if oid not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def files(self, revision: str = "main") -> dict[str, File]:
        return self.commits[self.resolve(revision)].files

    def history(self, revision: str = "main") -> list[Commit]:
        """The commits, newest first."""
        commits, oid = [], self.resolve(revision)
        while oid is not None:
            commits.append(self.commits[oid])
            oid = self.commits[oid].parent
        return commits

    def edit(self, path: str, content: str, ref: str = "refs/heads/main") -> str:
        """Commit a file as somebody does in the Hub's editor."""
        files = {**self.commits[self.refs[ref]].files, path: File(content.encode())}
        return self.add(ref, Commit(files, f"Update {path}", "somebody", self.refs[ref]))


@dataclass
class Collection:
    """A collection: `items` are `(type, id)`, with type `"model"`, `"dataset"` or `"space"`, in their order."""

    slug: str
    title: str
    private: bool
    description: str = ""
    items: list[tuple[str, str]] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.slug.split("/")[0]

    def answer(self) -> dict[str, Any]:
        """What the Hub says of it."""
        items = [
            {"_id": f"{position:024x}", "id": name, "type": kind, "position": position}
            for position, (kind, name) in enumerate(self.items)
        ]
        return {
            "slug": self.slug, "title": self.title, "description": self.description, "private": self.private,
            "owner": {"_id": "0", "name": self.namespace, "type": "org"}, "theme": "indigo", "upvotes": 0,
            "lastUpdated": "2026-01-01T00:00:00.000Z", "position": 0, "items": items,
        }  # fmt: skip

    def answer_in_list(self) -> dict[str, Any]:
        """What a list says of it, where its position is its place there."""
        answer = self.answer()
        del answer["position"]
        return {**answer, "items": answer["items"][:SHOWN_IN_LISTS]}


class HubError(Exception):
    """An answer other than success: its status, and what `X-Error-Code` and `X-Error-Message` say."""

    def __init__(self, status: int, message: str, code: str | None = None):
        self.status, self.message, self.code = status, message, code

    @property
    def response(self) -> JSONResponse:
        headers = {"X-Error-Message": self.message} | ({"X-Error-Code": self.code} if self.code else {})
        return JSONResponse({"error": self.message}, self.status, headers)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of this method whose path has `path` in it (a regex).

    Args:
        method, path: which requests.
        status, message: answer this and do nothing; an empty message is what a proxy without JSON says.
        cut_after: close the connection when so many bytes of the request have arrived.
        lose_answer: do as told, and close the connection instead of answering.
        before: called before the request is served, to change the repo under the client's feet.
        times: how often.
    """

    method: str
    path: str
    status: int | None = None
    message: str = "Something is wrong"
    cut_after: int | None = None
    lose_answer: bool = False
    before: Callable[[], Any] | None = None
    times: int = 1

    def takes(self, scope: dict) -> bool:
        if not self.times or scope["method"] != self.method or not re.search(self.path, unquote(scope["path"])):
            return False
        self.times -= 1
        return True


class FaultMiddleware:
    """Serve requests through the faults; the outermost layer, where the connection can still be closed."""

    def __init__(self, app, hub: "HubServer"):
        self.app, self.hub = app, hub

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        self.hub.requests.append(f"{scope['method']} {unquote(scope['path'])}")
        fault = next((fault for fault in self.hub.faults if fault.takes(scope)), None)
        connection = receive.__self__.transport  # uvicorn's
        if fault is None:
            return await self.app(scope, receive, send)
        if fault.before is not None:
            fault.before()
        if fault.status is not None:
            answer = HubError(fault.status, fault.message).response if fault.message else Response("", fault.status)
            return await answer(scope, receive, send)
        if fault.cut_after is not None:
            arrived, more = 0, True
            while more and arrived < fault.cut_after:
                message = await receive()
                arrived, more = arrived + len(message.get("body", b"")), message.get("more_body", False)
            return connection.abort()
        if fault.lose_answer:

            async def swallow(message):
                return None

            await self.app(scope, receive, swallow)
            return connection.abort()
        return await self.app(scope, receive, send)


class HubServer:
    """The server, in a thread of this process; a context manager that starts and stops it.

    Args:
        part_size: bytes of the parts in which larger LFS files are uploaded; None uploads them in one.

    `repos` by kind and id, `collections` by slug, `faults` and `requests` (`"POST /api/repos/create"`) are open to
    tests.
    """

    def __init__(self, part_size: int | None = None):
        self.part_size = part_size
        self.repos: dict[tuple[str, str], Repo] = {}
        self.collections: dict[str, Collection] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.lfs: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        app = FastAPI()
        app.include_router(routes(self))
        app.add_exception_handler(HubError, lambda request, error: error.response)
        config = uvicorn.Config(FaultMiddleware(app, self), host="127.0.0.1", port=0, log_level="error", http="h11")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> "HubServer":
        self.thread.start()
        while not self.server.started:
            self.thread.join(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *error) -> None:
        self.server.should_exit = True
        self.thread.join()

    def model(self, repo_id: str) -> Repo:
        return self.repos["models", repo_id]

    def create(self, kind: str, repo_id: str, author: str, private: bool = False, sdk: str | None = None) -> Repo:
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private, sdk=sdk)
        repo.add("refs/heads/main", Commit({".gitattributes": File(GITATTRIBUTES)}, "initial commit", author))
        return repo

    def user(self, request: Request) -> User | None:
        """Who asks; None without a token."""
        header = request.headers.get("authorization")
        if header is None:
            return None
        user = TOKENS.get(header.removeprefix("Bearer ").strip())
        if user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return user

    def logged_in(self, request: Request) -> User:
        user = self.user(request)
        if user is None:
            raise HubError(401, "Invalid username or password.")
        return user

    def is_visible(self, user: User | None, found: Repo | Collection) -> bool:
        return not found.private or (user is not None and found.namespace in (user.name, *user.orgs))

    def repo(self, request: Request, kind: str, repo_id: str, write: bool = False) -> Repo:
        """A repo that who asks may see, and write to if `write`."""
        repo, user = self.repos.get((kind, repo_id)), self.user(request)
        if repo is None or not self.is_visible(user, repo):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not self.logged_in(request).may_write(repo.namespace):
            raise HubError(403, "Forbidden: you must have write access to this repo")
        return repo


def routes(hub: HubServer) -> APIRouter:
    router = APIRouter()
    for add in (
        account_routes,
        collection_routes,
        repo_routes,
        tree_routes,
        ref_routes,
        commit_routes,
        lfs_routes,
        download_routes,
    ):
        add(router, hub)
    return router


def account_routes(router: APIRouter, hub: HubServer) -> None:
    """Answer who a token belongs to, and check the metadata of cards."""

    @router.get("/api/whoami-v2")
    def whoami(request: Request):
        user = hub.logged_in(request)
        access = {"displayName": "test", "role": user.role}
        return {
            "type": "user", "id": user.name, "name": user.name, "fullname": user.name,
            "orgs": [{"type": "org", "name": name} for name in user.orgs],
            "auth": {"type": "access_token", "accessToken": access},
        }  # fmt: skip

    @router.post("/api/validate-yaml")
    async def validate_yaml(request: Request):
        body = await request.json()
        content = body["content"]
        try:
            metadata = card_metadata(content)
            problem = None if isinstance(metadata, dict) else "metadata must be an object"
            for key, kinds in {"license": str, "tags": list, "model-index": list, "widget": list}.items():
                if problem is None and not isinstance(metadata.get(key, kinds()), kinds):
                    problem = f'"{key}" must be a {kinds.__name__}'
            if problem is None and body.get("repoType") == "space":
                problem = space_problem(metadata)
        except yaml.YAMLError as error:
            problem = str(error)
        if problem:
            return JSONResponse({"errors": [{"message": problem}], "warnings": []}, 400)
        return {"errors": [], "warnings": [] if metadata else [{"message": "empty or missing yaml metadata"}]}


def card_metadata(content: str) -> Any:
    block = re.match(r"\s*---\r?\n(.*?)\r?\n---", content, re.S)
    return yaml.safe_load(block[1]) if block else {}


def space_problem(metadata: dict[str, Any]) -> str | None:
    """What is wrong with the metadata of a Space's card; None if nothing is."""
    if metadata.get("sdk") not in SDKS:
        return f'"sdk" must be one of {SDKS}'
    for key in ("colorFrom", "colorTo"):
        if metadata.get(key, COLORS[0]) not in COLORS:
            return f'"{key}" must be one of {COLORS}'
    models = metadata.get("models", [])
    are_ids = isinstance(models, list) and all(re.fullmatch(r"[\w.-]+/[\w.-]+", str(model)) for model in models)
    return None if are_ids else '"models" must be a list of repo ids'


def collection_routes(router: APIRouter, hub: HubServer) -> None:
    """Make collections, and say what is in them."""

    def visible(request: Request, slug: str) -> Collection:
        collection = hub.collections.get(slug)
        if collection is None or not hub.is_visible(hub.user(request), collection):
            raise HubError(404, "Collection not found")
        return collection

    @router.get("/api/collections")
    def collections(request: Request, owner: str | None = None, item: str | None = None):
        return [
            collection.answer_in_list()
            for collection in hub.collections.values()
            if owner in (None, collection.namespace)
            and (item is None or item in [f"{kind}s/{name}" for kind, name in collection.items])
            and hub.is_visible(hub.user(request), collection)
        ]

    @router.post("/api/collections")
    async def create(request: Request):
        body, user = await request.json(), hub.logged_in(request)
        namespace, title = body["namespace"], body["title"]
        if not user.may_write(namespace):
            raise HubError(403, f"You don't have the rights to create a collection under {namespace!r}")
        if len(title) > 60 or len(body.get("description", "")) > 150:
            raise HubError(400, "Title or description is too long")
        slug = (
            f"{namespace}/{re.sub(r'[^a-z0-9]+', '-', title.lower())}-{hashlib.sha1(title.encode()).hexdigest()[:24]}"
        )
        if slug in hub.collections:
            return JSONResponse({"error": "This collection already exists", "slug": slug}, 409)
        hub.collections[slug] = Collection(slug, title, body["private"], body.get("description", ""))
        return hub.collections[slug].answer()

    @router.get("/api/collections/{owner}/{name}")
    def get(owner: str, name: str, request: Request):
        return visible(request, f"{owner}/{name}").answer()

    @router.post("/api/collections/{owner}/{name}/items")
    async def add(owner: str, name: str, request: Request):
        collection, item = visible(request, f"{owner}/{name}"), (await request.json())["item"]
        if not hub.logged_in(request).may_write(collection.namespace):
            raise HubError(403, "Forbidden: you must have write access to this collection")
        hub.repo(request, f"{item['type']}s", item["id"])  # which must be there
        if (item["type"], item["id"]) in collection.items:
            raise HubError(409, "The item is in the collection already")
        collection.items.append((item["type"], item["id"]))
        return collection.answer()


def repo_routes(router: APIRouter, hub: HubServer) -> None:
    """Create repos, and say what is in them."""

    @router.post("/api/repos/create")
    async def create(request: Request):
        body, user = await request.json(), hub.logged_in(request)
        kind = f"{body.get('type') or 'model'}s"
        namespace = body.get("organization") or user.name
        repo_id = f"{namespace}/{body['name']}"
        if not user.may_write(namespace):
            raise HubError(403, f"You don't have the rights to create a repo under the namespace {namespace!r}")
        if kind == "spaces" and body.get("sdk") not in SDKS:
            raise HubError(400, f"A Space's sdk must be one of {SDKS}")
        existing = hub.repos.get((kind, repo_id))
        is_private = body.get("visibility") == "private"
        repo = existing or hub.create(kind, repo_id, user.name, is_private, body.get("sdk"))
        answer = {"url": hub.url + repo.url, "name": repo_id, "id": repo_id}
        return JSONResponse(answer | {"error": "You already created this repo"}, 409) if existing else answer

    @router.delete("/api/repos/delete")
    async def delete(request: Request):
        body = await request.json()
        kind = f"{body.get('type') or 'model'}s"
        repo_id = f"{body.get('organization') or hub.logged_in(request).name}/{body['name']}"
        del hub.repos[kind, hub.repo(request, kind, repo_id, write=True).id]
        return {}

    @router.put("/api/{kind}/{owner}/{name}/settings")
    async def settings(kind: str, owner: str, name: str, request: Request):
        body, repo = await request.json(), hub.repo(request, kind, f"{owner}/{name}", write=True)
        repo.private = body.get("visibility", "private" if repo.private else "public") == "private"
        return body

    @router.get("/api/{kind}/{owner}/{name}")
    def info(kind: str, owner: str, name: str, request: Request, blobs: bool = False):
        return revision_info(kind, owner, name, "main", request, blobs)

    @router.get("/api/{kind}/{owner}/{name}/revision/{revision:path}")
    def revision_info(kind: str, owner: str, name: str, revision: str, request: Request, blobs: bool = False):
        repo = hub.repo(request, kind, f"{owner}/{name}")
        oid = repo.resolve(unquote(revision))
        commit = repo.commits[oid]
        siblings = [
            {"rfilename": path}
            | ({"size": file.size, "blobId": file.oid} | ({"lfs": lfs_info(file)} if file.lfs else {}) if blobs else {})
            for path, file in sorted(commit.files.items())
        ]
        card = card_metadata(commit.files["README.md"].content.decode()) if "README.md" in commit.files else None
        return {
            "_id": "0", "id": repo.id, "author": repo.namespace, "sha": oid, "lastModified": commit.date,
            "createdAt": repo.history(oid)[-1].date, "private": repo.private, "gated": False, "disabled": False,
            "downloads": 0, "likes": 0, "tags": (card or {}).get("tags") or [], "cardData": card,
            "pipeline_tag": (card or {}).get("pipeline_tag"), "library_name": (card or {}).get("library_name"),
            "siblings": siblings, "spaces": [], **({"sdk": repo.sdk} if repo.sdk else {}),
        }  # fmt: skip


def lfs_info(file: File) -> dict[str, Any]:
    return {"oid": file.sha256, "sha256": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}


def tree_routes(router: APIRouter, hub: HubServer) -> None:
    """List files and commits."""

    def entry(path: str, file: File) -> dict[str, Any]:
        return {"type": "file", "path": path, "oid": file.oid, "size": file.size} | (
            {"lfs": lfs_info(file)} if file.lfs else {}
        )

    def directory(path: str) -> dict[str, Any]:
        return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}

    @router.get("/api/{kind}/{owner}/{name}/tree/{revision}")
    @router.get("/api/{kind}/{owner}/{name}/tree/{revision}/{path:path}")
    def tree(
        kind: str, owner: str, name: str, revision: str, request: Request, path: str = "", recursive: bool = False
    ):
        files = hub.repo(request, kind, f"{owner}/{name}").files(unquote(revision))
        prefix = path.strip("/") + "/" if path.strip("/") else ""
        entries = {}
        for inside, file in sorted((p.removeprefix(prefix), f) for p, f in files.items() if p.startswith(prefix)):
            parts = inside.split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                folder = prefix + "/".join(parts[:depth])
                entries[folder] = directory(folder)
            if recursive or len(parts) == 1:
                entries[prefix + inside] = entry(prefix + inside, file)
        if prefix and not entries:
            raise HubError(404, f"{path} does not exist on {revision!r}", "EntryNotFound")
        return list(entries.values())

    @router.post("/api/{kind}/{owner}/{name}/paths-info/{revision}")
    async def paths_info(kind: str, owner: str, name: str, revision: str, request: Request):
        files = hub.repo(request, kind, f"{owner}/{name}").files(unquote(revision))
        is_form = "form" in request.headers.get("content-type", "")
        paths = (await request.form()).getlist("paths") if is_form else (await request.json())["paths"]
        known = [path.strip("/") for path in paths]
        return [
            entry(path, files[path]) if path in files else directory(path)
            for path in known
            if path in files or any(other.startswith(f"{path}/") for other in files)
        ]

    @router.get("/api/{kind}/{owner}/{name}/commits/{revision}")
    def commits(kind: str, owner: str, name: str, revision: str, request: Request):
        repo = hub.repo(request, kind, f"{owner}/{name}")
        oids = {id(commit): oid for oid, commit in repo.commits.items()}
        return [
            {"id": oids[id(c)], "title": c.title, "message": c.description, "date": c.date,
             "authors": [{"user": c.author, "avatar": ""}]}
            for c in repo.history(unquote(revision))
        ]  # fmt: skip


def ref_routes(router: APIRouter, hub: HubServer) -> None:
    """Make and delete branches and tags, and list pull requests."""

    @router.get("/api/{kind}/{owner}/{name}/refs")
    def refs(kind: str, owner: str, name: str, request: Request):
        repo = hub.repo(request, kind, f"{owner}/{name}")

        def under(prefix: str) -> list[dict[str, str]]:
            return [
                {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid}
                for ref, oid in repo.refs.items()
                if ref.startswith(prefix)
            ]

        pulls = [{**ref, "name": ref["ref"].removeprefix("refs/")} for ref in under("refs/pr/")]
        return {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": [], "pullRequests": pulls}

    def add_ref(repo: Repo, ref: str, revision: str) -> dict:
        if ref in repo.refs:
            raise HubError(409, "Reference already exists")
        repo.refs[ref] = repo.resolve(revision)
        return {}

    @router.post("/api/{kind}/{owner}/{name}/branch/{branch:path}")
    async def branch(kind: str, owner: str, name: str, branch: str, request: Request):
        repo, body = hub.repo(request, kind, f"{owner}/{name}", write=True), await request.json()
        return add_ref(repo, f"refs/heads/{unquote(branch)}", body.get("startingPoint") or "main")

    @router.post("/api/{kind}/{owner}/{name}/tag/{revision:path}")
    async def tag(kind: str, owner: str, name: str, revision: str, request: Request):
        repo, body = hub.repo(request, kind, f"{owner}/{name}", write=True), await request.json()
        return add_ref(repo, f"refs/tags/{body['tag']}", unquote(revision))

    @router.delete("/api/{kind}/{owner}/{name}/{what}/{ref:path}")
    def delete_ref(kind: str, owner: str, name: str, what: str, ref: str, request: Request):
        repo = hub.repo(request, kind, f"{owner}/{name}", write=True)
        if repo.refs.pop(f"refs/{'heads' if what == 'branch' else 'tags'}/{unquote(ref)}", None) is None:
            raise HubError(404, f"No such {what}", "RevisionNotFound")
        return {}

    @router.get("/api/{kind}/{owner}/{name}/discussions")
    def discussions(kind: str, owner: str, name: str, request: Request, status: str | None = None):
        found = [
            pull
            for pull in hub.repo(request, kind, f"{owner}/{name}").pull_requests
            if status in (None, "all", pull["status"])
        ]
        return {"discussions": found, "count": len(found), "start": 0}


def commit_routes(router: APIRouter, hub: HubServer) -> None:
    """Say how a file is to be uploaded, and commit."""

    @router.post("/api/{kind}/{owner}/{name}/preupload/{revision:path}")
    async def preupload(
        kind: str, owner: str, name: str, revision: str, request: Request, create_pr: str | None = None
    ):
        repo = hub.repo(request, kind, f"{owner}/{name}", write=not create_pr)
        files, answers = repo.files(unquote(revision)), []
        for asked in (await request.json())["files"]:
            path, current = asked["path"], files.get(asked["path"])
            is_lfs = path.endswith(LFS_SUFFIXES) or b"\0" in base64.b64decode(asked.get("sample") or "")
            answers.append(
                {"path": path, "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False}
                | ({"oid": current.etag} if current else {})
            )
        return {"files": answers}

    @router.post("/api/{kind}/{owner}/{name}/commit/{revision:path}")
    async def commit(kind: str, owner: str, name: str, revision: str, request: Request, create_pr: str | None = None):
        repo = hub.repo(request, kind, f"{owner}/{name}", write=not create_pr)
        user, revision = hub.logged_in(request), unquote(revision)
        ref, parent = repo.full_ref(revision), repo.resolve(revision)
        if not create_pr and (ref is None or ref.startswith("refs/tags/")):
            raise HubError(400, f"{revision} is not a branch")
        lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, parent):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = changed_files(hub, repo.commits[parent].files, lines)
        new = Commit(files, header.get("summary", ""), user.name, parent, header.get("description", ""))
        pull_url = None
        if create_pr:
            number = len(repo.pull_requests) + 1
            ref, pull_url = f"refs/pr/{number}", f"{hub.url}{repo.url}/discussions/{number}"
            repo.pull_requests.append(
                {"num": number, "title": new.title, "author": {"name": user.name}, "createdAt": new.date,
                 "status": "open", "isPullRequest": True, "repo": {"name": repo.id, "type": KINDS[kind]}}
            )  # fmt: skip
        oid = repo.add(ref, new)
        url = f"{hub.url}{repo.url}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": "", "pullRequestUrl": pull_url}


def changed_files(hub: HubServer, files: dict[str, File], lines: list[dict[str, Any]]) -> dict[str, File]:
    """The files of a commit, from those of its parent and the lines of a request."""
    files = dict(files)
    for line in lines:
        key, value = line["key"], line["value"]
        path = value.get("path", "")
        if key == "file":
            is_base64 = value.get("encoding") == "base64"
            files[path] = File(base64.b64decode(value["content"]) if is_base64 else value["content"].encode())
        elif key == "lfsFile":
            if value["oid"] not in hub.lfs:
                raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path}")
            files[path] = File(hub.lfs[value["oid"]], lfs=True)
        elif key == "deletedFile":
            if files.pop(path, None) is None:
                raise HubError(404, f"A file with the name {path!r} does not exist", "EntryNotFound")
        elif key == "deletedFolder":
            files = {other: file for other, file in files.items() if not other.startswith(path.rstrip("/") + "/")}
    return files


def lfs_routes(router: APIRouter, hub: HubServer) -> None:
    """Take large files, in one part or several."""

    @router.post("/{repo:path}.git/info/lfs/objects/batch")
    async def batch(repo: str, request: Request):
        kind, repo_id = repo.split("/", 1) if repo.split("/")[0] in KINDS else ("models", repo)
        body = await request.json()
        hub.repo(request, kind, repo_id, write="ref" in body)  # without, it is for a pull request
        hub.logged_in(request)
        objects = [{"oid": asked["oid"], "size": asked["size"]} for asked in body["objects"]]
        for wanted in objects:
            if wanted["oid"] not in hub.lfs:
                wanted["actions"] = {"upload": upload_action(**wanted), "verify": {"href": f"{hub.url}/lfs/verify"}}
        return {"transfer": "basic", "objects": objects}

    def upload_action(oid: str, size: int) -> dict[str, Any]:
        if hub.part_size is None or size <= hub.part_size:
            return {"href": f"{hub.url}/lfs/whole/{oid}"}
        parts = range(1, -(-size // hub.part_size) + 1)
        urls = {f"{part:05d}": f"{hub.url}/lfs/part/{oid}/{part}" for part in parts}
        return {"href": f"{hub.url}/lfs/complete/{oid}", "header": {"chunk_size": str(hub.part_size), **urls}}

    def store(oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise HubError(400, "What arrived is not what was announced")
        hub.lfs[oid] = content

    @router.put("/lfs/whole/{oid}")
    async def whole(oid: str, request: Request):
        store(oid, await request.body())
        return Response()

    @router.put("/lfs/part/{oid}/{part}")
    async def one_part(oid: str, part: int, request: Request):
        content = await request.body()
        hub.parts.setdefault(oid, {})[part] = content
        return Response(headers={"ETag": hashlib.md5(content).hexdigest()})

    @router.post("/lfs/complete/{oid}")
    async def complete(oid: str, request: Request):
        parts = hub.parts.pop(oid, {})
        if [part["partNumber"] for part in (await request.json())["parts"]] != sorted(parts):
            raise HubError(400, "Parts are missing")
        store(oid, b"".join(parts[part] for part in sorted(parts)))
        return {}

    @router.post("/lfs/verify")
    async def verify(request: Request):
        asked = await request.json()
        return Response(status_code=200 if len(hub.lfs.get(asked["oid"], b"")) == asked["size"] else 404)


def download_routes(router: APIRouter, hub: HubServer) -> None:
    """Give files, whole or in ranges."""

    @router.api_route("/{kind}/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def resolve_kind(kind: str, owner: str, name: str, revision: str, path: str, request: Request):
        repo = hub.repo(request, kind, f"{owner}/{name}")
        oid = repo.resolve(unquote(revision))
        file = repo.commits[oid].files.get(path)
        headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        if file is None:
            answer = HubError(404, "Entry not found", "EntryNotFound").response
            answer.headers.update(headers)
            return answer
        headers["ETag"] = f'"{file.etag}"'
        if file.lfs:
            headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
        content, status = file.content, 200
        if asked := re.match(r"bytes=(\d+)-(\d*)$", request.headers.get("range", "")):
            first, last = int(asked[1]), min(int(asked[2] or file.size - 1), file.size - 1)
            content, status = content[first : last + 1], 206
            headers["Content-Range"] = f"bytes {first}-{last}/{file.size}"
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers | {"Content-Length": str(len(content))})
        return Response(content, status, headers, media_type="application/octet-stream")

    @router.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def resolve(owner: str, name: str, revision: str, path: str, request: Request):
        return resolve_kind("models", owner, name, revision, path, request)
