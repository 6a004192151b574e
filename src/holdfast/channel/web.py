"""The web chat: answers for browsers that are logged in, kept until they come (`docs/web-chat.md`).

The ledger is its platform (`outbox/mail.py`): a message has arrived when it is a row there, under the key of its
delivery, so whoever asks gets a trustworthy answer, and sending twice is sending once. What is shown of an answer while
it is written is in memory alone: browsers of this process see it grow, and its row takes its place.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.channel.listening import Adapter, Setup
from holdfast.channel.web_words import named_by
from holdfast.errors import ChannelRefusedError, InputError, ResourceError, SendUnknownError
from holdfast.outbox.mail import Mailbox

TRAITS = ChannelTraits(reconciles=True, longest_request_s=10.0, text_max=100_000)
PREVIEWS_MAX = 200
"""Conversations of which a beginning, or that somebody writes, is remembered here; the oldest give way."""


def make(setup: Setup) -> Adapter:
    """The adapter of `[channels.web]`. Raises InputError: there is nowhere to keep messages."""
    if setup.mailbox is None:
        raise InputError(f"channels.{setup.name}: a web chat needs the gateway's own mailbox")
    channel = WebChat(setup.name, setup.mailbox)
    return Adapter(channel, editor=channel, typing=channel)


class Watcher:
    """A browser that looks at a conversation. `changed` is set when there may be something new for it."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.changed = asyncio.Event()


class WebChat:
    """Sends, edits and shows typing; browsers watch."""

    edit_every_s = 0.3
    typing_lasts_s = 6.0
    traits = TRAITS

    def __init__(self, name: str, mailbox: Mailbox) -> None:
        self.name = name
        self._mailbox = mailbox
        self._watchers: set[Watcher] = set()
        self._previews: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._typed: OrderedDict[str, int] = OrderedDict()

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, request: SendRequest) -> Sent:
        """Keep it for browsers; one that is kept already stays as it is."""
        return await self._put(request.delivery_id, request)

    async def find(self, delivery_id: str, target: str) -> Sent | None:  # noqa: ARG002  # keys are of the whole channel
        try:
            found = await self._mailbox.find_mail(self.name, delivery_id)
        except ResourceError as exc:
            raise SendUnknownError(str(exc)) from exc
        return None if found is None else Sent(found.id)

    async def edit(self, reference: str, request: SendRequest) -> Sent:
        return await self._put(reference, request)

    async def remove(self, reference: str, target: str) -> None:
        self._forget(target, reference)

    async def show_typing(self, target: str) -> None:
        self._typed[target] = self._typed.pop(target, 0) + 1
        if len(self._typed) > PREVIEWS_MAX:
            self._typed.popitem(last=False)
        self.wake(target)

    async def _put(self, reference: str, request: SendRequest) -> Sent:
        if named_by(request.target) is None:
            raise ChannelRefusedError(f"no conversation {request.target!r}: owner, or owner/NAME", permanent=True)
        if request.preview:
            self._previews.setdefault(request.target, {})[reference] = request.text
            self._previews.move_to_end(request.target)
            if len(self._previews) > PREVIEWS_MAX:
                self._previews.popitem(last=False)
            self.wake(request.target)
            return Sent(reference)
        try:
            await self._mailbox.put_mail(self.name, reference, request.target, "agent", request.labelled_text)
        except ResourceError as exc:
            raise SendUnknownError(str(exc)) from exc
        self._forget(request.target, reference)
        return Sent(reference)

    def _forget(self, target: str, reference: str) -> None:
        there = self._previews.get(target, {})
        there.pop(reference, None)
        if not there:
            self._previews.pop(target, None)
        self.wake(target)

    # ── for browsers ─────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def watch(self, target: str) -> Iterator[Watcher]:
        """Be told of what is new in a conversation, until left. What other processes put there is not told: look."""
        watcher = Watcher(target)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def wake(self, target: str) -> None:
        """Something is new there."""
        for watcher in self._watchers:
            if watcher.target == target:
                watcher.changed.set()

    def previews(self, target: str) -> Mapping[str, str]:
        """Beginnings of answers that are being written here, by the key of their delivery."""
        return MappingProxyType(dict(self._previews.get(target, {})))

    def arrived(self, target: str, mail_id: str) -> None:
        """A message was seen there: whatever was shown of it is over, whoever has sent it."""
        if mail_id in self._previews.get(target, {}):
            self._forget(target, mail_id)

    def typed(self, target: str) -> int:
        """How often somebody was shown writing there; a greater number: once more."""
        return self._typed.get(target, 0)
