"""The web chat does what every channel does; its platform is the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import holdfast
from holdfast.channel.channel import Channel, SendRequest, Sent
from holdfast.channel.listening import Adapter, Setup
from holdfast.channel.web import make
from holdfast.errors import ChannelRefusedError, InputError
from holdfast.kernel import Holdfast
from holdfast.outbox.mail import Mail
from holdfast.testing.channel_suite import ChannelSuite


class Browser:
    """The platform of the suite. `seen`: what a browser has been shown; it is looked at after each send."""

    target = "owner"

    def __init__(self, hf: Holdfast, adapter: Adapter) -> None:
        self.hf, self.adapter = hf, adapter
        self._channel = Seen(adapter.channel, self)
        self.mail: list[Mail] = []

    @property
    def channel(self) -> Channel:
        return self._channel

    def shown(self) -> str:
        return "\n".join(one.text for one in self.mail)

    def fail(self) -> None:
        self._channel.inner = make(Setup("web", mailbox=self.hf.store)).channel
        self._channel.target = "nobody"


class Seen:
    """The channel, with a look at the browser after each send."""

    def __init__(self, inner: Channel, browser: Browser) -> None:
        self.inner, self.browser, self.target = inner, browser, ""
        self.name, self.traits = inner.name, inner.traits

    async def send(self, request: SendRequest) -> Sent:
        target = self.target or request.target
        try:
            return await self.inner.send(SendRequest(request.delivery_id, target, request.text, request.label))
        finally:
            self.browser.mail = await self.browser.hf.store.mail("web", "owner")

    async def find(self, delivery_id: str, target: str) -> Sent | None:
        return await self.inner.find(delivery_id, target)


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Browser]:
    async with holdfast.open(tmp_path / "state") as hf:
        yield Browser(hf, make(Setup("web", mailbox=hf.store)))


class TestWebChat(ChannelSuite):
    """The suite; its fixture is the module's."""


async def test_what_is_sent_again_under_its_key_is_there_once(platform: Browser) -> None:
    first = await platform.channel.send(SendRequest("d_1", "owner", "hello"))
    again = await platform.channel.send(SendRequest("d_1", "owner", "hello", "(may be a duplicate)"))
    assert (first, platform.shown()) == (again, "hello")


async def test_a_beginning_is_shown_to_browsers_and_never_kept(platform: Browser) -> None:
    channel, editor = platform.adapter.channel, platform.adapter.editor
    chat = make(Setup("web", mailbox=platform.hf.store)).channel
    assert editor is not None
    sent = await channel.send(SendRequest("d_1", "owner", "hel …", preview=True))
    assert await channel.find("d_1", "owner") is None, "whoever finishes it sends it as any other"
    assert await chat.find("d_1", "owner") is None
    assert sent.reference is not None
    await editor.edit(sent.reference, SendRequest("d_1", "owner", "hello"))
    await editor.edit(sent.reference, SendRequest("d_1", "owner", "hello"))
    assert [one.text for one in await platform.hf.store.mail("web", "owner")] == ["hello"]
    await editor.remove(sent.reference, "owner")


@pytest.mark.parametrize("target", ["", "somebody", "owner/", "owner/Main", "owner/main", "owner/a/b", "owner/../x"])
async def test_a_target_that_is_no_conversation_is_refused_for_good(platform: Browser, target: str) -> None:
    with pytest.raises(ChannelRefusedError) as refused:
        await platform.adapter.channel.send(SendRequest("d_1", target, "hello"))
    assert refused.value.permanent


def test_it_needs_somewhere_to_keep_messages() -> None:
    with pytest.raises(InputError, match="mailbox"):
        make(Setup("web"))
