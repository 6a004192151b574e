"""Slack: answers by the Web API, messages by requests that Slack makes or by a socket of ours (`docs/slack.md`).

A message carries its delivery id as metadata, which Slack keeps with it: `find` reads the conversation back. Loaded
when a configuration names it; needs slack-sdk and aiohttp (`pip install 'holdfast[slack]'`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.channel.listening import Adapter, Attachment, Hear, Posted, Reply, Setup
from holdfast.channel.slack_events import Me, Place, Threads, heard_of, message_of, place_of
from holdfast.channel.slack_socket import SlackSocket
from holdfast.channel.slack_text import to_mrkdwn
from holdfast.channel.slack_web import SlackWeb
from holdfast.errors import ChannelError, ChannelRefusedError, InputError, SendUnknownError
from holdfast.inbound.webhook import is_signed
from holdfast.text import on_one_line

TEXT_MAX = 3800
"""Slack advises at most 4,000 characters and cuts off at 40,000; escaping makes at most five of one."""
TRAITS = ChannelTraits(reconciles=True, longest_request_s=30.0, text_max=TEXT_MAX)
PAGES_MAX, PAGE_MESSAGES = 5, 999
"""How far back a message is looked for, the newest first. Further back nobody can tell whether it is there."""
EVENT_TYPE = "holdfast_delivery"
NAMES_MAX, NAME_WAIT_S = 1000, 2.0
log = logging.getLogger("holdfast.channels.slack")


@dataclass(slots=True)
class _Line:
    """What was said in one conversation and is not handed over yet."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


def make(setup: Setup) -> Adapter:
    """The adapter of `[channels.NAME.slack]`.

    Raises:
        InputError: a secret is missing.
    """
    options = setup.options
    web = SlackWeb(setup.secret("bot_token_env"), options.get("api_url"), setup.env)
    threads = Threads(options.get("reply_in_thread", "always"), options.get("dm_threads", False))
    channel = SlackChannel(setup.name, web, threads)
    is_called = options.get("mode", "socket") == "http"
    return Adapter(
        channel,
        listener=None if is_called else SlackSocket(web, setup.secret("app_token_env"), channel.tell),
        receiver=SlackReceiver(channel, setup.secret("signing_secret_env")) if is_called else None,
        editor=channel,
        typing=channel,
        reactions=channel,
        close=web.close,
    )


class SlackChannel:
    """One bot of one workspace. Edits messages, puts signs beside those of others."""

    edit_every_s = 1.2
    """`chat.update` is a method of tier 3: 50 calls a minute and more."""
    typing_lasts_s = 60.0
    """Slack shows it for two minutes, or until the app writes."""

    def __init__(self, name: str, web: SlackWeb, threads: Threads, *, traits: ChannelTraits = TRAITS) -> None:
        self.name = name
        self.traits = traits
        self.web = web
        self._threads = threads
        self._me: Me | None = None
        self._names: OrderedDict[str, str] = OrderedDict()
        self._lines: dict[str, _Line] = {}

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, request: SendRequest) -> Sent:
        """Post it, once, with its id as metadata."""
        place = place_of(request.target)
        answer = await self.web.call(
            "chat.postMessage", channel=place.channel, thread_ts=place.thread, **_content(request), unfurl_links=False,
            unfurl_media=False,
        )  # fmt: skip
        return Sent(f"{answer.get('channel', place.channel)}:{answer.get('ts', '')}")

    async def find(self, delivery_id: str, target: str) -> Sent | None:
        """Read the thread or the conversation back, the newest first, and look for the id."""
        place = await self._conversation(place_of(target))
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            page = await self._page(place, cursor)
            for message in page.get("messages", ()):
                metadata = message.get("metadata") or {}
                payload = metadata.get("event_payload") or {}
                if metadata.get("event_type") == EVENT_TYPE and payload.get("id") == delivery_id:
                    return Sent(f"{place.channel}:{message['ts']}", preview=bool(payload.get("preview")))
            cursor = (page.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                if page.get("has_more"):
                    break
                return None
        raise SendUnknownError(f"not among the last {PAGES_MAX * PAGE_MESSAGES} messages, and there are more")

    async def _page(self, place: Place, cursor: str | None) -> dict[str, Any]:
        usual: dict[str, Any] = {
            "channel": place.channel, "include_all_metadata": True, "limit": PAGE_MESSAGES, "cursor": cursor,
        }  # fmt: skip
        if place.thread is None:
            return await self.web.read("conversations.history", **usual)
        return await self.web.read("conversations.replies", ts=place.thread, **usual)

    async def _conversation(self, place: Place) -> Place:
        """A person can be written to, but not read from: their conversation has a name of its own."""
        if not place.channel.startswith(("U", "W")):
            return place
        answer = await self.web.call("conversations.open", users=place.channel)
        return Place(str((answer.get("channel") or {}).get("id", place.channel)), place.thread)

    # ── what else it can do ──────────────────────────────────────────────────────────────────────────────────────────

    async def edit(self, reference: str, request: SendRequest) -> Sent:
        channel, _, ts = reference.partition(":")
        await self.web.call("chat.update", channel=channel, ts=ts, **_content(request))
        return Sent(reference)

    async def remove(self, reference: str, target: str) -> None:  # noqa: ARG002  # the contract's shape
        channel, _, ts = reference.partition(":")
        try:
            await self.web.call("chat.delete", channel=channel, ts=ts)
        except ChannelRefusedError as refused:
            if "message_not_found" not in str(refused):
                raise

    async def react(self, target: str, message_id: str, sign: str) -> None:  # noqa: ARG002  # the contract's shape
        channel, _, ts = message_id.partition(":")
        try:
            await self.web.call("reactions.add", channel=channel, timestamp=ts, name=sign.strip(":"))
        except ChannelRefusedError as refused:
            if "already_reacted" not in str(refused):
                raise

    async def show_typing(self, target: str) -> None:
        """In threads alone, and for apps that are set up as assistants: Slack shows it for no others."""
        place = place_of(target)
        if place.thread is None:
            raise ChannelRefusedError("Slack shows it in threads alone", permanent=True)
        await self.web.call(
            "assistant.threads.setStatus", channel_id=place.channel, thread_ts=place.thread, status="is writing…"
        )

    # ── hearing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def tell(self, payload: Mapping[str, Any], hear: Hear) -> None:
        """Hand over what an event says, in the order of its conversation. When it returns, Slack may be told so.

        Raises:
            as `Hear`, but for what cannot be a message at all, which is logged; ChannelError: Slack could not be asked
            who we are.
        """
        event = payload.get("event")
        place = str(event.get("channel", "")) if isinstance(event, dict) else ""
        line = self._lines.setdefault(place, _Line())
        line.waiting += 1
        try:
            async with line.lock:  # fair: whoever came first goes first
                await self._tell(payload, hear)
        finally:
            line.waiting -= 1
            if not line.waiting:
                del self._lines[place]

    async def _tell(self, payload: Mapping[str, Any], hear: Hear) -> None:
        me = await self.me()
        message = message_of(payload, me)
        if message is None:
            return
        name = "" if message.kind == "direct" else await self._name_of(message.sender)
        try:
            await hear(heard_of(message, me, self._threads, name=name, attachment=self._attachment))
        except InputError as exc:
            log.warning("channel %s: something that was said was not taken: %s", self.name, on_one_line(str(exc)))

    async def me(self) -> Me:
        """Who we are; asked once. Raises ChannelError."""
        if self._me is None:
            told = await self.web.call("auth.test")
            self._me = Me(str(told.get("user_id", "")), str(told.get("bot_id", "")), str(told.get("team_id", "")))
        return self._me

    async def _name_of(self, user: str) -> str:
        """What people call somebody; empty if Slack does not say."""
        if user in self._names:
            self._names.move_to_end(user)
            return self._names[user]
        try:
            async with asyncio.timeout(NAME_WAIT_S):
                told = (await self.web.read("users.info", user=user)).get("user") or {}
        except (ChannelError, TimeoutError):
            told = {}
        profile = told.get("profile") or {}
        name = str(profile.get("display_name") or told.get("real_name") or told.get("name") or "")
        self._names[user] = name
        if len(self._names) > NAMES_MAX:
            self._names.popitem(last=False)
        return name

    def _attachment(self, file: Mapping[str, Any]) -> Attachment:
        url = str(file.get("url_private_download") or file.get("url_private") or "")
        size = file.get("size")

        async def fetch(bytes_max: int) -> bytes:
            return await self.web.download(url, bytes_max)

        return Attachment(
            str(file.get("name") or "file"),
            str(file.get("mimetype") or ""),
            size if isinstance(size, int) else None,
            fetch,
        )


class SlackReceiver:
    """`POST /channels/NAME`: the Events API over HTTP."""

    def __init__(self, channel: SlackChannel, signing_secret: str) -> None:
        self._channel = channel
        self._secret = signing_secret

    async def receive(self, posted: Posted, hear: Hear) -> Reply:
        """Slack waits for three seconds, then it tells again; what was heard twice is told apart."""
        if not is_signed("slack", self._secret, posted.headers, posted.body, posted.at):
            return Reply(401, "not signed with the signing secret of this app")
        try:
            payload = json.loads(posted.body)
        except (ValueError, RecursionError):
            return Reply(400, "not JSON: only the Events API is served here")
        if not isinstance(payload, dict):
            return Reply(400, "not an event")
        if payload.get("type") == "url_verification":
            return Reply(200, str(payload.get("challenge", ""))[:1000])
        try:
            await self._channel.tell(payload, hear)
        except ChannelError as exc:
            log.warning("channel %s: a message was not taken, Slack tells it again: %s", self._channel.name, exc)
            return Reply(503, "Slack does not answer us")
        return Reply()


def _content(request: SendRequest) -> dict[str, Any]:
    payload: dict[str, Any] = {"id": request.delivery_id}
    if request.preview:
        payload["preview"] = True
    return {
        "text": to_mrkdwn(request.labelled_text), "mrkdwn": True,
        "metadata": {"event_type": EVENT_TYPE, "event_payload": payload},
    }  # fmt: skip
