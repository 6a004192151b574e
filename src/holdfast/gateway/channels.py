"""The channels of a configuration: their adapters, loaded by name, and what each hands its messages to."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from holdfast.channel.channel import Channel
from holdfast.channel.listening import Adapter, Listener, Make, Setup
from holdfast.errors import HoldfastError, InputError
from holdfast.gateway.listening import Listening, hear_once_stored
from holdfast.inbound.attachments import AttachmentLimits
from holdfast.inbound.hearing import Hearing
from holdfast.outbox.showing import Showing, Surface

if TYPE_CHECKING:
    from holdfast.config import Config
    from holdfast.config.channels import ChannelConfig
    from holdfast.kernel import Holdfast
    from holdfast.outbox.mail import Mailbox

GROUP = "holdfast.channels"
BUILT_IN = {
    "discord": "holdfast.channel.discord:make",
    "github": "holdfast.channel.github:make",
    "slack": "holdfast.channel.slack:make",
    "telegram": "holdfast.channel.telegram:make",
    "web": "holdfast.channel.web:make",
}
"""Kinds that come with Holdfast: module and maker, loaded when a configuration names them."""
EXTRAS = {"discord": "discord", "github": "github", "slack": "slack", "telegram": "gateway"}
"""What has to be installed for a kind: `pip install 'holdfast[EXTRA]'`."""
MIB = 1 << 20
log = logging.getLogger("holdfast.channels")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_TAKEN = frozenset({"console", "webhook", "cron", "main", "hook", "subagent"})


@dataclass(frozen=True, slots=True)
class Platform:
    """A channel as a gateway runs it. `hearing`: what its messages are handed to."""

    name: str
    adapter: Adapter
    config: ChannelConfig
    hearing: Hearing


def make_platforms(
    hf: Holdfast, config: Config, env: Mapping[str, str], instead: Mapping[str, Adapter]
) -> dict[str, Platform]:
    """Every channel of the configuration that is enabled. Opens no connection.

    Args:
        env: where secrets are looked up. instead: adapters by name, where there are to be others than the usual ones.

    Raises:
        InputError: a name that cannot be one, a kind that is not there, a secret that is missing; names them.
    """
    platforms: dict[str, Platform] = {}
    for name, own in config.platforms().items():
        if own.enabled:
            adapter = instead.get(name) or make_adapter(name, own, env, hf.store)
            hearing = Hearing(
                hf,
                name,
                own.rules(name),
                config.routing(),
                limits=AttachmentLimits(own.attachments_max, own.attachment_mib_max * MIB),
                reactions=adapter.reactions,
                sign=own.reaction,
            )
            platforms[name] = Platform(name, adapter, own, hearing)
    chats = [name for name, one in platforms.items() if one.config.is_web(name)]
    if len(chats) > 1:
        raise InputError(f"channels.{chats[-1]}: there is one web chat, and {chats[0]} is it; a page has no two")
    return platforms


def exchange_hearings(platforms: Mapping[str, Platform], config: Config) -> None:
    """Who may speak, and whose conversation it is, for what is heard from now on. Connections stay as they are."""
    known = config.platforms()
    for name, one in platforms.items():
        own = known[name]
        limits = AttachmentLimits(own.attachments_max, own.attachment_mib_max * MIB)
        one.hearing.exchange(own.rules(name), config.routing(), limits, own.reaction)


def make_adapter(name: str, own: ChannelConfig, env: Mapping[str, str], mailbox: Mailbox) -> Adapter:
    """The adapter of one channel. Raises InputError."""
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise InputError(f"channels.{name}: the name must be of small letters, digits, - and _, and none of "
                         f"{', '.join(sorted(_TAKEN))}")  # fmt: skip
    kind = own.kind or name
    adapter = find_maker(name, kind)(Setup(name, own.adapter_options(kind), env, mailbox))
    if adapter.channel.name != name:
        raise InputError(f"channels.{name}: its adapter calls itself {adapter.channel.name!r}; it must take Setup.name")
    return adapter


def find_maker(name: str, kind: str) -> Make:
    """Who makes adapters of a kind. Raises InputError."""
    try:
        if kind in BUILT_IN:
            module, _, maker = BUILT_IN[kind].partition(":")
            return getattr(import_module(module), maker)
        for point in entry_points(group=GROUP, name=kind):
            return point.load()
    except ImportError as exc:
        way_out = f"; pip install 'holdfast[{EXTRAS[kind]}]'" if kind in EXTRAS else ""
        raise InputError(f"channels.{name}: {kind!r} cannot be loaded: {exc}{way_out}") from exc
    except HoldfastError:
        raise
    except Exception as exc:  # a plugin may raise anything while it is loaded
        raise InputError(f"channels.{name}: {kind!r} cannot be loaded: {type(exc).__name__}: {exc}") from exc
    known = sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})
    raise InputError(f"channels.{name}: no channel of kind {kind!r}; there are: {', '.join(known)}")


@asynccontextmanager
async def run_listening(hf: Holdfast, platforms: Mapping[str, Platform]) -> AsyncIterator[Listening]:
    """Listen to the channels that fall to this process, until left; then everything of theirs is closed."""
    listeners: dict[str, Listener] = {}
    for name, one in platforms.items():
        if one.adapter.listener is not None:
            listeners[name] = one.adapter.listener
    hears = {name: hear_once_stored(one.hearing.hear, name) for name, one in platforms.items()}
    resumables = {name: one.adapter.resumable for name, one in platforms.items() if one.adapter.resumable is not None}
    listening = Listening(hf, listeners, hears, resumables)
    running = asyncio.create_task(listening.run(), name="listening")
    try:
        yield listening
    finally:
        listening.stop()
        await asyncio.gather(running, return_exceptions=True)  # it fails only with the store, as the worker does
        closing = [one.adapter.close() for one in platforms.values() if one.adapter.close is not None]
        for failed in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(failed, Exception):
                log.warning("a channel could not be closed in order: %s", failed)


@asynccontextmanager
async def run_showing(hf: Holdfast, platforms: Mapping[str, Platform]) -> AsyncIterator[Showing]:
    """Show on the channels that are set so what turns are doing, until left."""
    showing = Showing(
        hf, [Surface(one.adapter, one.config.shown_as(one.name), one.config.typing) for one in platforms.values()]
    )
    running = asyncio.create_task(showing.run(), name="showing")
    try:
        yield showing
    finally:
        showing.stop()
        await asyncio.gather(running, return_exceptions=True)  # nothing depends on it


def as_adapters(channels: Iterable[Channel | Adapter]) -> list[Adapter]:
    """Channels that a program brings itself; most of them only send."""
    return [one if isinstance(one, Adapter) else Adapter(one) for one in channels]
