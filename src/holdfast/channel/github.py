"""GitHub: comments on issues and pull requests, told by webhooks, answered by comments (`docs/github.md`).

A comment carries its delivery id in a marker that nobody sees, and is found by it in its conversation. Loaded when a
configuration names it; needs aiohttp (`pip install 'holdfast[github]'`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.channel.github_events import Me, Name, Place, heard_of, is_said, name_of, place_of
from holdfast.channel.github_text import TEXT_MAX, Marker, marked, marker_of
from holdfast.channel.github_web import Answer, GitHubWeb
from holdfast.channel.listening import Adapter, Hear, Posted, Reply, Setup
from holdfast.errors import ChannelError, ChannelRefusedError, InputError, SendUnknownError
from holdfast.inbound.webhook import is_signed
from holdfast.text import on_one_line

TRAITS = ChannelTraits(reconciles=True, longest_request_s=45.0, text_max=TEXT_MAX)
"""A send is two requests at most, each redirected once."""
PAGES_MAX, PAGE_COMMENTS = 10, 100
"""How far back a comment is looked for, the newest first. Further back nobody can tell whether it is there."""
SIGNS = ("+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes")
ME_WAIT_S = 5.0
"""GitHub waits for ten seconds in all, and does not come again by itself."""
log = logging.getLogger("holdfast.channels.github")


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was found. is_whole: nothing, and the conversation was read to its beginning."""

    name: Name | None = None
    marker: Marker | None = None
    is_whole: bool = False


def make(setup: Setup) -> Adapter:
    """The adapter of `[channels.NAME.github]`.

    Raises:
        InputError: a secret is missing.
    """
    options = setup.options
    web = GitHubWeb(setup.secret("token_env"), options.get("api_url"), setup.env)
    login, is_standing = options.get("login") or "", bool(options.get("one_comment", False))
    channel = GitHubChannel(
        setup.name, web, login=login, mentions=bool(options.get("mentions", False)), one_comment=is_standing
    )
    return Adapter(
        channel,
        receiver=GitHubReceiver(channel, setup.secret("webhook_secret_env")),
        editor=None if is_standing else channel,
        reactions=channel,
        close=web.close,
    )


class GitHubChannel:
    """One account. Edits its comments, puts signs beside those of others.

    Args:
        login: of the account; empty: it is asked for. mentions: comments notify whom they name. one_comment: each
            conversation has one comment of ours, which becomes the newest answer.
    """

    edit_every_s = 5.0
    """GitHub takes 80 changes a minute from one account, and 500 an hour."""

    def __init__(
        self,
        name: str,
        web: GitHubWeb,
        *,
        login: str = "",
        mentions: bool = False,
        one_comment: bool = False,
        traits: ChannelTraits = TRAITS,
    ) -> None:
        self.name = name
        self.traits = traits
        self._web = web
        self._mentions = mentions
        self._one_comment = one_comment
        self._me: Me | None = Me(login) if login else None

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, request: SendRequest) -> Sent:
        """Post it, once; or make it the text of the one comment of its conversation."""
        place = _place(request.target)
        if self._one_comment and "." not in request.delivery_id:  # what a text is too long for stands below it
            standing = await self._standing(place)
            if standing is not None:
                return await self.edit(str(standing), request)
        answer = await self._web.call("POST", _issue(place, "/comments"), {"body": self._body(request)})
        made = answer.data.get("id") if isinstance(answer.data, dict) else None
        if not isinstance(made, int):
            raise SendUnknownError("GitHub's answer names no comment")
        return Sent(str(Name(place, "issuecomment", made)))

    def _body(self, request: SendRequest) -> str:
        standing = self._one_comment and "." not in request.delivery_id
        marker = Marker(request.delivery_id, request.preview, standing)
        return marked(request.labelled_text, marker, mentions=self._mentions)

    async def _standing(self, place: Place) -> Name | None:
        """The one comment of a conversation; None: there is none yet, as far back as anybody looks."""
        try:
            async with asyncio.timeout(self.traits.longest_request_s / 2):
                return (await self._look(place, lambda marker: marker.standing)).name
        except SendUnknownError as exc:  # of a question: nothing was sent
            raise ChannelRefusedError(f"its comments could not be read: {exc}") from exc
        except TimeoutError:
            raise ChannelRefusedError("its comments could not be read in time") from None

    async def find(self, delivery_id: str, target: str) -> Sent | None:
        """Read the conversation back, the newest first, and look for the marker."""
        looked = await self._look(_place(target), lambda marker: marker.delivery_id == delivery_id)
        if looked.name is not None and looked.marker is not None:
            return Sent(str(looked.name), preview=looked.marker.preview)
        if looked.is_whole:
            return None
        raise SendUnknownError(f"not among the last {PAGES_MAX * PAGE_COMMENTS} comments, and there are more")

    async def _look(self, place: Place, is_it: Callable[[Marker], bool]) -> _Looked:
        """The newest comment of ours with such a marker. Pages are counted from the oldest; one that is deleted
        meanwhile moves others towards the beginning, to where is looked next.
        """
        last = (await self._page(place, 1)).last_page
        for page in range(last, max(0, last - PAGES_MAX), -1):
            comments = (await self._page(place, page)).data
            for comment in reversed(comments if isinstance(comments, list) else []):
                marker = marker_of(str(comment.get("body") or ""))
                if marker is not None and is_it(marker) and self._is_ours(comment):
                    return _Looked(Name(place, "issuecomment", int(comment["id"])), marker)
        return _Looked(is_whole=last <= PAGES_MAX)

    async def _page(self, place: Place, page: int) -> Answer:
        return await self._web.call("GET", _issue(place, f"/comments?per_page={PAGE_COMMENTS}&page={page}"))

    def _is_ours(self, comment: Mapping[str, Any]) -> bool:
        """Whoever copies a marker into a comment of theirs has answered nothing."""
        login = str((comment.get("user") or {}).get("login", ""))
        return self._me is None or login.lower() == self._me.login.lower()

    # ── what else it can do ──────────────────────────────────────────────────────────────────────────────────────────

    async def edit(self, reference: str, request: SendRequest) -> Sent:
        name = _comment(reference)
        await self._web.call("PATCH", _repo(name.place, f"/issues/comments/{name.id}"), {"body": self._body(request)})
        return Sent(reference)

    async def remove(self, reference: str, target: str) -> None:  # noqa: ARG002  # the contract's shape
        name = _comment(reference)
        try:
            await self._web.call("DELETE", _repo(name.place, f"/issues/comments/{name.id}"))
        except ChannelRefusedError as refused:
            if "status 404" not in str(refused) and "status 410" not in str(refused):
                raise

    async def react(self, target: str, message_id: str, sign: str) -> None:  # noqa: ARG002  # the contract's shape
        name = name_of(message_id)
        content = sign.strip(":")
        if name is None or content not in SIGNS:
            raise ChannelRefusedError(f"no reaction {content!r}; there are {', '.join(SIGNS)}", permanent=True)
        paths = {
            "issue": f"/issues/{name.place.number}/reactions",
            "issuecomment": f"/issues/comments/{name.id}/reactions",
            "discussion_r": f"/pulls/comments/{name.id}/reactions",
        }
        if name.kind in paths:  # a review as a whole takes none
            await self._web.call("POST", _repo(name.place, paths[name.kind]), {"content": content})

    # ── who we are ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def me(self) -> Me:
        """Who we are; asked once, if the configuration does not say. Raises ChannelError."""
        if self._me is None:
            told = (await self._web.call("GET", "/user")).data
            if not isinstance(told, dict) or not isinstance(told.get("login"), str):
                raise ChannelRefusedError("GitHub does not say whose token this is")
            ident = told.get("id")
            self._me = Me(told["login"], ident if isinstance(ident, int) else 0)
        return self._me


class GitHubReceiver:
    """`POST /channels/NAME`: the webhook of a repository or an organisation."""

    def __init__(self, channel: GitHubChannel, secret: str) -> None:
        self._channel = channel
        self._secret = secret
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def receive(self, posted: Posted, hear: Hear) -> Reply:
        """The signature is looked at before anything else, over the bytes as they came."""
        if not is_signed("github", self._secret, posted.headers, posted.body, posted.at):
            return Reply(401, "not signed with the secret of this webhook")
        if not posted.headers.get("content-type", "").lower().startswith("application/json"):
            return Reply(415, "set the webhook's content type to application/json")
        event = posted.headers.get("x-github-event", "")
        try:
            payload = json.loads(posted.body)
        except (ValueError, RecursionError):
            return Reply(400, "not JSON")
        if not isinstance(payload, dict):
            return Reply(400, "not an event")
        if not is_said(event, payload):
            return Reply(200, "nothing that was said")
        try:
            async with asyncio.timeout(ME_WAIT_S):
                me = await self._channel.me()
        except (ChannelError, TimeoutError) as exc:
            log.warning(
                "channel %s: a message was not taken, since GitHub does not say who we are (set `login`): %s",
                self._channel.name, on_one_line(str(exc)),
            )  # fmt: skip
            return Reply(503, "GitHub does not answer us")
        heard = heard_of(event, payload, me)
        if heard is None:
            return Reply(200, "nothing that was said to us")
        async with self._lines.setdefault(heard.target, asyncio.Lock()):  # fair: whoever came first goes first
            try:
                receipt = await hear(heard)
            except InputError as exc:
                log.warning("channel %s: something that was said was not taken: %s", self._channel.name,
                            on_one_line(str(exc)))  # fmt: skip
                return Reply(200, "not taken")
        return Reply(200, receipt.outcome)


def _place(target: str) -> Place:
    place = place_of(target)
    if place is None:
        raise ChannelRefusedError(f"no issue {on_one_line(target)[:100]!r}: owner/repo#12", permanent=True)
    return place


def _comment(reference: str) -> Name:
    name = name_of(reference)
    if name is None or name.kind != "issuecomment":
        raise ChannelRefusedError(f"no comment {reference[:100]!r}", permanent=True)
    return name


def _repo(place: Place, rest: str) -> str:
    return f"/repos/{place.repo}{rest}"


def _issue(place: Place, rest: str) -> str:
    return _repo(place, f"/issues/{place.number}{rest}")
