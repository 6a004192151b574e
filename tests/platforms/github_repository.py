"""A stand-in of a GitHub repository that a program works on: items, files, checks, labels, statuses, branches, merges,
GraphQL's blame, and webhooks about all of it, over real sockets; pages, ETags, limits and faults on demand.

    async with repository_stand_in() as github:
        pull = github.pull(12, files=[…])
        github.fault("POST", "/repos/octo/boat/issues/12/comments", status=502, done=True)   # done, and not told

What happens there makes `payloads`: webhooks, signed and posted by whoever asks for it (`tell`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx
from aiohttp import web

from tests.platforms.serving import served

TOKEN, SECRET = "github_pat_sweeper_test", "It's a Secret to Everybody"
ME, MY_ID, REPO = "sweeper-bot", 99, "octo/boat"
PEOPLE = {"ann": 7, "bob": 8, "cyd": 9, "eve": 66, ME: MY_ID}
RIGHTS = {"bob": "write", "cyd": "admin", ME: "write"}
PATCH = "@@ -1,3 +1,3 @@\n one\n-two\n+zwei\n three"


@dataclass(slots=True)
class Fault:
    status: int
    headers: dict[str, str] = field(default_factory=dict[str, str])
    message: str = "a fault"
    done: bool = False
    cut: bool = False


@dataclass(slots=True)
class Thing:
    """An issue or a pull request. files: None: an issue."""

    number: int
    title: str
    body: str
    login: str
    labels: list[str]
    files: list[dict[str, Any]] | None = None
    head: str = ""
    ref: str = "mend"
    state: str = "open"
    merged: bool = False
    draft: bool = False
    association: str = "NONE"
    repo: str = "ann/boat"
    mergeable: bool | None = True
    reviews: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    checks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


class Repository:
    """One repository. asked: method, path and status of each request. comments: by id, in order; body and login."""

    def __init__(self, page_size: int = 100) -> None:
        self.url = ""
        self.page_size = page_size
        self.things: dict[int, Thing] = {}
        self.comments: dict[int, tuple[int, str, str]] = {}
        self.versions: dict[int, list[str]] = {}
        self.reactions: list[tuple[int, str]] = []
        self.statuses: list[tuple[str, dict[str, Any]]] = []
        self.contents: dict[str, str] = {"src/hull/plank.py": "one\nzwei\nthree\n"}
        self.modes: dict[str, str] = {}  # of files that are not plain ones, as they are and as they were written
        self.branches: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, int]] = []
        self.payloads: list[tuple[str, dict[str, Any]]] = []
        self.faults: dict[tuple[str, str], deque[Fault]] = {}
        self._ids = 1000
        self._commits: dict[str, dict[str, Any]] = {}
        self._pushes = 0

    # ── what a test does ─────────────────────────────────────────────────────────────────────────────────────────────

    def pull(self, number: int, **facts: Any) -> Thing:
        """Open a pull request."""
        files = [
            {"filename": "src/hull/plank.py", "status": "modified", "additions": 1, "deletions": 1, "patch": PATCH}
        ]
        given: dict[str, Any] = {
            "title": "Mend the hull",
            "body": "It leaked.",
            "login": "ann",
            "labels": [],
            "files": files,
        } | facts
        made = self.things[number] = Thing(number, **given)
        made.head = made.head or self._sha(f"{number}")
        self._tell("pull_request", number, "opened", made.login)
        return made

    def issue(self, number: int, **facts: Any) -> Thing:
        given: dict[str, Any] = {"title": "It sinks", "body": "Help", "login": "ann", "labels": []} | facts
        made = self.things[number] = Thing(number, **given)
        self._tell("issues", number, "opened", made.login)
        return made

    def push(self, number: int, *, by: str = "ann") -> str:
        """A newer commit, by force or not: the old one is gone."""
        self._pushes += 1
        self.things[number].head = self._sha(f"{number} {self._pushes}")
        self._tell("pull_request", number, "synchronize", by, after=self.things[number].head)
        return self.things[number].head

    def edit(self, number: int, **facts: Any) -> None:
        thing = self.things[number]
        for name, value in facts.items():
            setattr(thing, name, value)
        event = "issues" if thing.files is None else "pull_request"
        self._tell(event, number, "closed" if facts.get("state") == "closed" else "edited", thing.login)

    def say(self, number: int, text: str, *, login: str = "bob") -> int:
        """Somebody comments."""
        made = self._comment(number, text, login)
        comment = {"id": made, "body": text, "user": _user(login)}
        self._tell("issue_comment", number, "created", login, comment=comment)
        return made

    def fault(self, method: str, path: str, **facts: Any) -> None:
        """Of the next such request. done: it is done all the same. cut: the connection breaks instead of an answer."""
        self.faults.setdefault((method, path), deque()).append(Fault(**facts))

    def ours(self, number: int) -> list[str]:
        """What our comments there say now."""
        return [body for at, body, login in self.comments.values() if (at, login) == (number, ME)]

    async def tell(self, url: str, event: str, payload: dict[str, Any], delivery: str, secret: str = SECRET) -> int:
        """Post a webhook, signed; its status."""
        body = json.dumps(payload).encode()
        signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "x-hub-signature-256": f"sha256={signed}", "x-github-event": event, "x-github-delivery": delivery,
            "content-type": "application/json",
        }  # fmt: skip
        async with httpx.AsyncClient(timeout=60) as http:
            return (await http.post(url, content=body, headers=headers)).status_code

    # ── the other side ───────────────────────────────────────────────────────────────────────────────────────────────

    async def call(self, request: web.Request) -> web.StreamResponse:
        faults = self.faults.get((request.method, request.path))
        fault = faults.popleft() if faults else None
        body = await request.json() if request.can_read_body else {}
        answer = self._answer(request, body) if fault is None or fault.done else web.json_response({})
        if fault is not None and fault.cut:
            self.asked.append((request.method, request.path, 0))
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault is not None:
            answer = web.json_response({"message": fault.message}, status=fault.status, headers=fault.headers)
        self.asked.append((request.method, request.path, answer.status))
        return answer

    def _answer(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _refused(401, "Bad credentials")
        method, path = request.method, request.path
        if path == "/user":
            return web.json_response(_user(ME))
        if path == "/graphql":
            return self._blame()
        base = f"/repos/{REPO}"
        if not path.startswith(base):
            return _refused(404, "Not Found")
        parts = [unquote(part) for part in path.removeprefix(base).strip("/").split("/") if part]
        handlers = {"issues": self._issues, "pulls": self._pulls, "git": self._git}
        if not parts:
            return web.json_response({"full_name": REPO, "default_branch": "main"})
        if parts[0] in handlers:
            return handlers[parts[0]](request, method, parts[1:], body)
        if parts[0] == "collaborators":
            right = RIGHTS.get(parts[1], "read")
            return web.json_response({"permission": right, "role_name": right})
        if parts[0] == "statuses" and method == "POST":
            self.statuses.append((parts[1], body))
            return web.json_response(body, status=201)
        if parts[0] == "contents":
            text = self.contents.get("/".join(parts[1:]))
            if text is None:
                return _refused(404, "Not Found")
            coded = base64.b64encode(text.encode()).decode()
            return web.json_response({"encoding": "base64", "content": coded})
        if parts[0] == "commits" and len(parts) == 2:
            return web.json_response({"sha": self._sha("main")})
        if parts[0] == "commits" and parts[2] == "check-runs":
            checks = next((one.checks for one in self.things.values() if one.head == parts[1]), [])
            return self._page(request, checks, key="check_runs")
        if parts[0] == "commits":
            return self._page(request, [told for sha, told in reversed(self.statuses) if sha == parts[1]])
        return _refused(404, "Not Found")

    def _issues(self, request: web.Request, method: str, parts: list[str], body: dict[str, Any]) -> web.Response:
        if not parts:
            return self._page(request, [self._issue(one) for one in self.things.values() if one.state == "open"])
        if parts[0] == "comments":
            return self._a_comment(method, int(parts[1]), parts[2:], body)
        thing = self.things.get(int(parts[0]))
        if thing is None:
            return _refused(404, "Not Found")
        if len(parts) == 1:
            return self._kept(request, self._issue(thing))
        if parts[1] == "labels":
            if method == "POST":
                thing.labels += [one for one in body["labels"] if one not in thing.labels]
            elif parts[2] in thing.labels:
                thing.labels.remove(parts[2])
            else:
                return _refused(404, "Label does not exist")
            return web.json_response([{"name": one} for one in thing.labels])
        if method == "POST":
            return web.json_response({"id": self._comment(thing.number, body["body"], ME)}, status=201)
        listed = [
            {"id": id, "body": text, "user": _user(login), "author_association": "NONE"}
            for id, (number, text, login) in self.comments.items()
            if number == thing.number
        ]
        return self._page(request, listed)

    def _a_comment(self, method: str, id: int, rest: list[str], body: dict[str, Any]) -> web.Response:
        if id not in self.comments:
            return _refused(404, "Not Found")
        number, _, login = self.comments[id]
        if rest == ["reactions"]:
            self.reactions.append((id, body["content"]))
            return web.json_response({}, status=201)
        if login != ME:
            return _refused(403, "Forbidden")
        if method == "DELETE":
            del self.comments[id]
            return web.Response(status=204)
        self.comments[id] = (number, body["body"], login)
        self.versions[id].append(body["body"])
        return web.json_response({"id": id})

    def _pulls(self, request: web.Request, method: str, parts: list[str], body: dict[str, Any]) -> web.Response:
        if not parts:
            return self._branch_pulls(request, method, body)
        thing = self.things.get(int(parts[0]))
        if thing is None or thing.files is None:
            return _refused(404, "Not Found")
        if len(parts) == 1:
            return self._kept(request, self._pull(thing))
        if parts[1] == "merge":
            if body["sha"] != thing.head:
                return _refused(409, "Head branch was modified. Review and try the merge again.")
            thing.merged, thing.state = True, "closed"
            return web.json_response({"merged": True, "sha": self._sha("merged")})
        return self._page(request, {"files": thing.files, "reviews": thing.reviews}.get(parts[1], []))

    def _branch_pulls(self, request: web.Request, method: str, body: dict[str, Any]) -> web.Response:
        if method == "GET":
            wanted = request.query.get("head", "").partition(":")[2]
            made = [one for one in self.things.values() if one.ref == wanted]
            return self._page(request, [{"number": one.number} for one in made])
        number = max(self.things) + 1
        self.things[number] = Thing(number, body["title"], body["body"], ME, [], [], ref=body["head"], repo=REPO)
        return web.json_response({"number": number}, status=201)

    def _git(self, request: web.Request, method: str, parts: list[str], body: dict[str, Any]) -> web.Response:
        sha = self._sha(json.dumps(body, sort_keys=True))
        if parts[0] == "trees" and method == "GET":
            tree = [{"path": path, "mode": self.modes.get(path, "100644")} for path in self.contents]
            return web.json_response({"tree": tree, "truncated": False})
        if parts == ["trees"]:
            self.modes = {one["path"]: one["mode"] for one in body["tree"]}
            self._commits[sha] = {one["path"]: one["content"] for one in body["tree"]}
        elif parts == ["commits"]:
            self._commits[sha] = {"files": self._commits[body["tree"]], "parents": body["parents"]}
        elif parts == ["refs"]:
            if body["ref"] in self.branches:
                return _refused(422, "Reference already exists")
            self.branches[body["ref"]] = self._commits[body["sha"]]
        elif method == "GET":
            return web.json_response({"ref": "/".join(parts[1:])})
        return web.json_response({"sha": sha}, status=201)

    def _blame(self) -> web.Response:
        ranges = [
            {"startingLine": first, "endingLine": last, "commit": {"author": {"user": {"login": login}}}}
            for first, last, login in ((1, 2, "cyd"), (3, 9, "bob"))
        ]
        return web.json_response({"data": {"repository": {"object": {"blame": {"ranges": ranges}}}}})

    # ── forms ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _issue(self, one: Thing) -> dict[str, Any]:
        told: dict[str, Any] = {
            "number": one.number, "title": one.title, "body": one.body, "state": one.state, "user": _user(one.login),
            "labels": [{"name": name} for name in one.labels], "author_association": one.association,
            "updated_at": f"2026-01-01T00:00:{self._pushes % 60:02d}Z",
        }  # fmt: skip
        return told | ({"pull_request": {"url": "…"}} if one.files is not None else {})

    def _pull(self, one: Thing) -> dict[str, Any]:
        return self._issue(one) | {
            "merged": one.merged, "draft": one.draft, "mergeable": one.mergeable,
            "head": {"sha": one.head, "ref": one.ref, "repo": {"full_name": one.repo}},
            "base": {"sha": self._sha("base"), "ref": "main"},
        }  # fmt: skip

    def _page(self, request: web.Request, listed: list[Any], key: str = "") -> web.Response:
        size = min(self.page_size, int(request.query.get("per_page", 30)))
        page = int(request.query.get("page", 1))
        shown = listed[(page - 1) * size : page * size]
        headers = {}
        if page * size < len(listed):
            again = re.sub(r"&page=\d+", "", request.path_qs)
            headers["Link"] = f'<{self.url}{again}&page={page + 1}>; rel="next"'
        return self._kept(request, {key: shown, "total_count": len(listed)} if key else shown, headers)

    def _kept(self, request: web.Request, body: Any, headers: dict[str, str] | None = None) -> web.Response:
        etag = f'"{hashlib.sha256(json.dumps(body).encode()).hexdigest()[:16]}"'
        told = {**(headers or {}), "ETag": etag}
        if request.headers.get("if-none-match") == etag:
            return web.Response(status=304, headers=told)
        return web.json_response(body, headers=told)

    def _comment(self, number: int, text: str, login: str) -> int:
        self._ids += 1
        self.comments[self._ids] = (number, text, login)
        self.versions[self._ids] = [text]
        return self._ids

    def _tell(self, event: str, number: int, action: str, login: str, **more: Any) -> None:
        about = "pull_request" if event == "pull_request" else "issue"
        told = {"action": action, about: {"number": number}, "repository": {"full_name": REPO}, "sender": _user(login)}
        self.payloads.append((event, told | more))

    def _sha(self, text: str) -> str:
        return hashlib.sha1(f"commit {text}".encode(), usedforsecurity=False).hexdigest()


def _user(login: str) -> dict[str, Any]:
    return {"login": login, "id": PEOPLE.get(login, 500), "type": "Bot" if login.endswith("[bot]") else "User"}


def _refused(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


@asynccontextmanager
async def repository_stand_in(page_size: int = 100) -> AsyncIterator[Repository]:
    """Serve it on a free port of loopback until left."""
    repository = Repository(page_size)
    async with served(repository.call) as url:
        repository.url = url
        yield repository
