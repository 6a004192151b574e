"""Discord: answers by its REST API, messages by its gateway (`docs/discord.md`).

A message carries a nonce made of its delivery id, which Discord keeps for some minutes: the same request again within
that time makes no second message but names the first. Loaded when a configuration names it; needs discord.py
(`pip install 'holdfast[discord]'`).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from discord import AllowedMentions, Intents, MessageFlags
from discord.http import handle_message_parameters

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.channel.discord_events import (
    Channel,
    Place,
    ReplyInThread,
    channel_of,
    heard_of,
    message_of,
    place_of,
)
from holdfast.channel.discord_socket import DiscordSocket
from holdfast.channel.discord_web import DiscordRefusedError, DiscordWeb
from holdfast.channel.listening import Adapter, Attachment, Hear, Setup
from holdfast.channel.signs import sign_of
from holdfast.errors import ChannelRefusedError, InputError, SendUnknownError
from holdfast.text import on_one_line

TEXT_MAX = 1900
"""Discord takes 2,000; what it counts is not said for signs beyond the first plane, so some room is left."""
KEEPS_KEYS_S = 120.0
""""The past few minutes", Discord says of how long it keeps a nonce (Create Message); less is relied on."""
TRAITS = ChannelTraits(longest_request_s=20.0, text_max=TEXT_MAX, keeps_keys_s=KEEPS_KEYS_S)
CHANNELS_MAX = 2000
THREAD_NAME_CHARS = 60
THREAD_HIDES_AFTER_MIN = 1440
THREAD_EXISTS = 160004
UNKNOWN_MESSAGE = 10008
log = logging.getLogger("holdfast.channels.discord")


def make(setup: Setup) -> Adapter:
    """The adapter of `[channels.NAME.discord]`.

    Raises:
        InputError: a secret is missing.
    """
    options = setup.options
    web = DiscordWeb(setup.secret("token_env"), options.get("api_url"), setup.env)
    channel = DiscordChannel(setup.name, web, options.get("reply_in_thread", "in_threads"))
    socket = DiscordSocket(web, intents_of(message_content=options.get("message_content", True)), channel.tell)
    return Adapter(
        channel, listener=socket, editor=channel, typing=channel, reactions=channel, resumable=socket, close=web.close
    )


def intents_of(*, message_content: bool) -> Intents:
    """What we want to be told of."""
    return Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=message_content)


class DiscordChannel:
    """One bot. Edits messages, puts signs beside those of others."""

    edit_every_s = 1.2
    """Five edits of a channel's messages in five seconds."""
    typing_lasts_s = 10.0

    def __init__(
        self, name: str, web: DiscordWeb, reply_in_thread: ReplyInThread, *, traits: ChannelTraits = TRAITS
    ) -> None:
        self.name = name
        self.traits = traits
        self.web = web
        self._reply_in_thread: ReplyInThread = reply_in_thread
        self._me = ""
        self._channels: OrderedDict[str, Channel] = OrderedDict()
        self._threads: OrderedDict[str, None] = OrderedDict()
        self._last: dict[str, asyncio.Task[Any]] = {}

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, request: SendRequest) -> Sent:
        """Post it, once, with its key as nonce. If Discord knows the key, it names the message that it belongs to: that
        one is made to say the same, unless it does already, with the label or without.
        """
        channel = await self._channel_of(request.target)
        try:
            told = await self._post(channel, request, nonce_of(request.delivery_id))
        except DiscordRefusedError as refused:
            if refused.code != UNKNOWN_MESSAGE:
                raise
            # The nonce belongs to a message that somebody has taken away, and makes no other any more.
            told = await self._post(channel, request, nonce_of(f"{request.delivery_id}/again"))
        message, shown = str(told.get("id", "")), str(told.get("content", "")).strip()
        if shown and shown not in (request.text.strip(), request.labelled_text.strip()):
            try:
                await self._edit(channel, message, request)
            except ChannelRefusedError as refused:  # it is there, but says something else
                raise SendUnknownError(f"it says something else: {refused}") from refused
        return Sent(f"{channel}:{message}")

    async def _post(self, channel: int, request: SendRequest, nonce: str) -> Mapping[str, Any]:
        with _content(request, nonce=nonce) as params:
            told: Any = await self.web.routes.send_message(channel, params=params)
        if not isinstance(told, dict) or not told.get("id"):
            raise SendUnknownError("Discord's answer names no message")
        return told

    async def find(self, delivery_id: str, target: str) -> Sent | None:  # noqa: ARG002  # the contract's shape
        raise SendUnknownError("Discord does not tell the nonce of a message that was sent")

    async def _channel_of(self, target: str) -> int:
        """Where it goes, ready to take it."""
        place = place_of(target)
        if place.person:
            told = await self.web.routes.start_private_message(_number(place.person))
            return _number(str(told.get("id", "")))
        if place.under and await self._begin_thread(place):
            return _number(place.under)
        return _number(place.channel)

    async def _begin_thread(self, place: Place) -> bool:
        """Whether there is a thread under a message, after it was begun; not if the message is gone. One that is there
        already is none too many.
        """
        if place.under in self._threads:
            return True
        channel, message = _number(place.channel), _number(place.under)
        try:
            asked = await self.web.routes.get_message(channel, message)
            await self.web.routes.start_thread_with_message(
                channel, message, name=_thread_name(str(asked.get("content", ""))),
                auto_archive_duration=THREAD_HIDES_AFTER_MIN,
            )  # fmt: skip
        except DiscordRefusedError as refused:
            if refused.code == UNKNOWN_MESSAGE:
                return await self._is_there(place.under)
            if refused.code != THREAD_EXISTS:
                raise
        except SendUnknownError as unknown:  # nothing of the message itself has gone out
            raise ChannelRefusedError(f"the thread could not be begun: {unknown}") from unknown
        self._threads[place.under] = None
        if len(self._threads) > CHANNELS_MAX:
            self._threads.popitem(last=False)
        return True

    async def _is_there(self, channel: str) -> bool:
        try:
            await self._known(channel)
        except ChannelRefusedError as refused:
            if not refused.permanent:
                raise
            return False
        return True

    # ── what else it can do ──────────────────────────────────────────────────────────────────────────────────────────

    async def edit(self, reference: str, request: SendRequest) -> Sent:
        channel, message = _reference(reference)
        await self._edit(channel, message, request)
        return Sent(reference)

    async def _edit(self, channel: int, message: str, request: SendRequest) -> None:
        with _content(request) as params:
            await self.web.routes.edit_message(channel, message, params=params)

    async def remove(self, reference: str, target: str) -> None:  # noqa: ARG002  # the contract's shape
        channel, message = _reference(reference)
        try:
            await self.web.routes.delete_message(channel, message)
        except DiscordRefusedError as refused:
            if refused.code != UNKNOWN_MESSAGE:
                raise

    async def react(self, target: str, message_id: str, sign: str) -> None:  # noqa: ARG002  # the contract's shape
        channel, message = _reference(message_id)
        await self.web.routes.add_reaction(channel, message, sign_of(sign))

    async def show_typing(self, target: str) -> None:
        await self.web.routes.send_typing(await self._channel_of(target))

    # ── hearing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def tell(self, name: str, event: Mapping[str, Any], hear: Hear) -> None:
        """Hand over what an event says, after what came before it in the same conversation.

        Raises:
            as `Hear`, but for what cannot be a message at all, which is logged; ChannelError: Discord could not be
            asked who we are, or where it was said.
        """
        if name == "READY":
            user = event.get("user")
            self._me = str(user.get("id", "")) if isinstance(user, dict) else ""
            return
        place = str(event.get("channel_id", ""))
        before, here = self._last.get(place), asyncio.current_task()
        assert here is not None
        self._last[place] = here
        try:
            if before is not None:
                await asyncio.wait({before})
            await self._tell(event, hear)
        finally:
            if self._last.get(place) is here:
                del self._last[place]

    async def _tell(self, event: Mapping[str, Any], hear: Hear) -> None:
        me = await self.me()
        message = message_of(event, me)
        if message is None:
            return
        channel = await self._known(message.channel) if message.guild else None
        heard = heard_of(message, me, channel, reply_in_thread=self._reply_in_thread, attachment=self._attachment)
        try:
            await hear(heard)
        except InputError as exc:
            log.warning("channel %s: something that was said was not taken: %s", self.name, on_one_line(str(exc)))

    async def me(self) -> str:
        """Who we are; asked once. Raises ChannelError."""
        if not self._me:
            self._me = await self.web.me()
        return self._me

    async def _known(self, channel: str) -> Channel:
        """What a conversation is, which no message tells. Raises ChannelError."""
        if channel in self._channels:
            self._channels.move_to_end(channel)
            return self._channels[channel]
        known = channel_of(await self.web.routes.get_channel(_number(channel)))
        self._channels[channel] = known
        if len(self._channels) > CHANNELS_MAX:
            self._channels.popitem(last=False)
        return known

    def _attachment(self, file: Mapping[str, Any]) -> Attachment:
        size = file.get("size")

        async def fetch(bytes_max: int) -> bytes:
            return await self.web.download(str(file.get("url") or ""), bytes_max)

        return Attachment(
            str(file.get("filename") or "file"),
            str(file.get("content_type") or "").partition(";")[0],
            size if isinstance(size, int) else None,
            fetch,
        )


def nonce_of(key: str) -> str:
    """A key in the 25 characters that Discord has for one."""
    return base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()[:18]).decode()


def _content(request: SendRequest, *, nonce: str | None = None) -> Any:
    return handle_message_parameters(
        content=request.labelled_text, nonce=nonce, flags=MessageFlags(suppress_embeds=True),
        allowed_mentions=AllowedMentions.none(),
    )  # fmt: skip


def _thread_name(text: str) -> str:
    line = on_one_line(text).strip()
    return line[:THREAD_NAME_CHARS] or "Answer"


def _reference(reference: str) -> tuple[int, Any]:
    channel, _, message = reference.partition(":")
    return _number(channel), _number(message)


def _number(name: str) -> int:
    """An id. Raises ChannelRefusedError: it is none, so that nothing can go there."""
    if not (name.isascii() and name.isdigit() and len(name) < 21):
        raise ChannelRefusedError(f"{name[:40]!r} is no id of Discord's: write 123 for a channel, @123 for a person",
                                  permanent=True)  # fmt: skip
    return int(name)
