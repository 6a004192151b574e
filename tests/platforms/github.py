"""A stand-in of GitHub over real sockets: comments and reactions by its REST API, webhooks out, with faults on demand.

async with github_stand_in() as github:
    config = {"channels": {"github": {"github": github.table()}}}
    await github.says(url, "@holdfast hello", number=12)      # the answer to the webhook
    github.lose_answer("POST")                               # the next one is done, and its answer is lost

Written from GitHub's reference, not from any client: comments are listed oldest first, a hundred to a page, with links;
a webhook that is not taken is not told again by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
from aiohttp import web

from holdfast.channel.channel import ChannelTraits
from holdfast.channel.github import GitHubChannel, GitHubReceiver
from holdfast.channel.github_text import TEXT_MAX
from holdfast.channel.github_web import GitHubWeb
from holdfast.channel.listening import Adapter
from holdfast.testing.channel import PATIENCE_S
from tests.platforms.serving import served

TOKEN, SECRET = "github_pat_test", "It's a Secret to Everybody"
ENV = {"GITHUB_TOKEN": TOKEN, "GITHUB_WEBHOOK_SECRET": SECRET}
ME, MY_ID = "holdfast-bot", 99
REPO = "octo-org/octo-repo"


@dataclass(slots=True)
class Comment:
    """One comment as people see it now. `versions`: its bodies, oldest first."""

    id: int
    repo: str
    number: int
    login: str
    versions: list[str]
    is_gone: bool = False

    @property
    def body(self) -> str:
        return self.versions[-1]

    @property
    def text(self) -> str:
        """Without what nobody sees."""
        return self.body.partition("\n\n<!--")[0].replace("\u200b", "")


@dataclass(slots=True)
class Fault:
    """What happens to one call. done: what was asked for is done all the same."""

    status: int = 200
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    done: bool = False
    cut: bool = False
    hold: asyncio.Event | None = None


class GitHubStandIn:
    """Some repositories, and one account that is ours.

    Attributes:
        comments: in order, edits applied. calls: method and path of each request. signs: (path of the message, sign).
        moved: repositories by their old names. closed: repositories in which nobody may comment.
    """

    def __init__(self, page_max: int = 100) -> None:
        self.url = ""
        self.comments: list[Comment] = []
        self.calls: list[str] = []
        self.signs: list[tuple[str, str]] = []
        self.moved: dict[str, str] = {}
        self.closed: set[str] = set()
        self.page_max = page_max
        self._faults: dict[str, deque[Fault]] = {}
        self._changed = asyncio.Event()
        self._ids = 1000

    # ── what a test does ─────────────────────────────────────────────────────────────────────────────────────────────

    def table(self, **options: Any) -> dict[str, Any]:
        """`[channels.github.github]` that leads here."""
        return {"api_url": self.url, **options}

    def fault(self, method: str, **facts: Any) -> None:
        """Of the next request with this method."""
        self._faults.setdefault(method, deque()).append(Fault(**facts))

    def lose_answer(self, method: str) -> None:
        """The next request is done; the connection breaks before its answer."""
        self.fault(method, done=True, cut=True)

    def hold(self, method: str) -> asyncio.Event:
        """The next request is done; its answer waits for the event."""
        event = asyncio.Event()
        self.fault(method, done=True, hold=event)
        return event

    def comment(self, text: str, *, number: int = 12, login: str = "octocat", repo: str = REPO) -> Comment:
        """Somebody comments, and no webhook tells of it."""
        self._ids += 1
        made = Comment(self._ids, repo, number, login, [text])
        self.comments.append(made)
        return made

    def event(
        self, text: str, *, number: int = 12, login: str = "octocat", user: int = 7, association: str = "MEMBER",
        kind: str = "User", repo: str = REPO, is_pull: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Somebody comments: the payload of the webhook `issue_comment`."""
        made = self.comment(text, number=number, login=login, repo=repo)
        issue: dict[str, Any] = {"number": number, "title": "It breaks", "id": 5000 + number}
        if is_pull:
            issue["pull_request"] = {"url": "…"}
        return {
            "action": "created", "issue": issue,
            "comment": {
                "id": made.id, "body": text, "author_association": association, "created_at": "2026-01-01T00:00:00Z",
                "user": {"login": login, "id": user, "type": kind},
            },
            "repository": {"full_name": repo}, "sender": {"login": login, "id": user, "type": kind},
        }  # fmt: skip

    async def posts(
        self, url: str, payload: dict[str, Any], *, event: str = "issue_comment", secret: str = SECRET,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:  # fmt: skip
        """A webhook, signed."""
        body = json.dumps(payload).encode()
        signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        usual = {
            "x-hub-signature-256": f"sha256={signed}", "x-github-event": event, "x-github-delivery": str(uuid4()),
            "content-type": "application/json",
        }  # fmt: skip
        async with httpx.AsyncClient(timeout=30) as http:
            return await http.post(url, content=body, headers={**usual, **(headers or {})})

    async def says(self, url: str, text: str, **facts: Any) -> httpx.Response:
        return await self.posts(url, self.event(text, **facts))

    def shown(self, number: int = 12, repo: str = REPO) -> list[str]:
        """What people see of us there."""
        return [
            one.text
            for one in self.comments
            if (one.repo, one.number, one.login, one.is_gone) == (repo, number, ME, False)
        ]

    async def shows(self, text: str, number: int = 12) -> None:
        await self.until(lambda: text in self.shown(number), f"{text!r} among {self.shown(number)!r}")

    async def until(self, is_so: Callable[[], bool], what: str = "") -> None:
        """Wait until something here is so; looked at whenever something has happened here."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}; called {self.calls[-20:]}") from None

    # ── the other side ───────────────────────────────────────────────────────────────────────────────────────────────

    async def call(self, request: web.Request) -> web.StreamResponse:
        """One request of the REST API."""
        self.calls.append(f"{request.method} {request.path}")
        self._changed.set()
        faults = self._faults.get(request.method)
        fault = faults.popleft() if faults else Fault(done=True)
        body = await request.json() if request.can_read_body else {}
        answer = self._answer(request, body) if fault.done else web.json_response({})
        self._changed.set()
        if fault.hold is not None:
            await fault.hold.wait()
        if fault.cut:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault.status >= 300:
            return web.json_response({"message": fault.message}, status=fault.status, headers=fault.headers)
        return answer

    def _answer(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"message": "Bad credentials"}, status=401)
        parts = request.path.strip("/").split("/")
        if parts == ["user"]:
            return web.json_response({"login": ME, "id": MY_ID})
        repo, rest = "/".join(parts[1:3]), parts[3:]
        if repo in self.moved:
            path = request.path_qs.replace(repo, self.moved[repo])
            return web.json_response({}, status=307, headers={"Location": path})
        if rest[-1] == "reactions":
            sign = ("/".join(rest[:-1]), body["content"])
            status = 200 if sign in self.signs else 201
            self.signs.append(sign) if status == 201 else None
            return web.json_response({}, status=status)
        if rest[:2] == ["issues", "comments"]:
            return self._change(request.method, int(rest[2]), body)
        number = int(rest[1])
        if request.method == "GET":
            return self._page(request, repo, number)
        if repo in self.closed:
            return web.json_response({"message": "Unable to create comment because issue is locked."}, status=403)
        if len(body["body"]) > 65_536:
            return web.json_response({"message": "Validation Failed"}, status=422)
        made = self.comment(body["body"], number=number, login=ME, repo=repo)
        return web.json_response({"id": made.id}, status=201)

    def _change(self, method: str, comment_id: int, body: dict[str, Any]) -> web.Response:
        found = next((one for one in self.comments if one.id == comment_id and not one.is_gone), None)
        if found is None:
            return web.json_response({"message": "Not Found"}, status=404)
        if method == "DELETE":
            found.is_gone = True
            return web.Response(status=204)
        if body["body"] != found.body:
            found.versions.append(body["body"])
        return web.json_response({"id": found.id})

    def _page(self, request: web.Request, repo: str, number: int) -> web.Response:
        there = [one for one in self.comments if (one.repo, one.number, one.is_gone) == (repo, number, False)]
        size = min(int(request.query.get("per_page", 30)), self.page_max)
        page, last = int(request.query.get("page", 1)), max(1, -(-len(there) // size))
        shown = [
            {"id": one.id, "body": one.body, "user": {"login": one.login}}
            for one in there[(page - 1) * size : page * size]
        ]
        url = f"{self.url}{request.path}?per_page={size}"
        links = f'<{url}&page={page + 1}>; rel="next", <{url}&page={last}>; rel="last"' if page < last else ""
        return web.json_response(shown, headers={"Link": links} if links else {})


@asynccontextmanager
async def github_stand_in(page_max: int = 100) -> AsyncIterator[GitHubStandIn]:
    """Serve it on a free port of loopback until left."""
    github = GitHubStandIn(page_max)
    async with served(github.call) as url:
        github.url = url
        yield github


def quick_adapter(github: GitHubStandIn, *, reconciles: bool = True, one_comment: bool = False) -> Adapter:
    """The adapter, whose sends are cut off, and looked for, after a second."""
    web_api = GitHubWeb(TOKEN, github.url, {})
    traits = ChannelTraits(reconciles=reconciles, longest_request_s=1.0, text_max=TEXT_MAX)
    channel = GitHubChannel("github", web_api, one_comment=one_comment, traits=traits)
    receiver = GitHubReceiver(channel, SECRET)
    return Adapter(
        channel, receiver=receiver, editor=None if one_comment else channel, reactions=channel, close=web_api.close
    )
