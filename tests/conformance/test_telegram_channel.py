"""Telegram's adapter does what every channel does, against a stand-in of the Bot API."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from holdfast.channel.channel import Channel, SendRequest
from holdfast.channel.listening import Adapter, Setup
from holdfast.channel.telegram import make
from holdfast.errors import ChannelRefusedError, InputError, SendUnknownError
from holdfast.testing.channel_suite import ChannelSuite
from tests.platforms.telegram import ENV, TOKEN, Fault, TelegramStandIn, telegram_stand_in

OPTIONS = {"token_env": "TELEGRAM_BOT_TOKEN"}
HELLO = SendRequest("d_1", "2001", "hello")


class Telegram:
    """The platform of the suite."""

    target = "2001"

    def __init__(self, there: TelegramStandIn, adapter: Adapter) -> None:
        self.there, self.adapter = there, adapter

    @property
    def channel(self) -> Channel:
        return self.adapter.channel

    def shown(self) -> str:
        return "\n".join(self.there.shown())

    def fail(self) -> None:
        self.there.blocked.add("2001")


@pytest.fixture
async def platform() -> AsyncIterator[Telegram]:
    async with telegram_stand_in() as there:
        adapter = make(Setup("telegram", {**OPTIONS, **there.table()}, ENV))
        yield Telegram(there, adapter)
        assert adapter.close is not None
        await adapter.close()


class TestTelegram(ChannelSuite):
    """The suite; its fixture is the module's."""


async def test_what_telegram_cannot_read_as_html_goes_out_as_it_is(platform: Telegram) -> None:
    platform.there.refuse("sendMessage", 400, "Bad Request: can't parse entities: whatever")
    await platform.channel.send(SendRequest("d_2", "2001", "**bold**"))
    assert platform.there.shown()[-1] == "**bold**"


async def test_an_edit_is_seen_and_twice_is_once(platform: Telegram) -> None:
    editor = platform.adapter.editor
    assert editor is not None
    sent = await platform.channel.send(SendRequest("d_1", "2001", "hel", preview=True))
    for _ in range(2):
        await editor.edit(str(sent.reference), HELLO)
    assert platform.there.shown() == ["hello"]
    for _ in range(2):
        await editor.remove(str(sent.reference), "2001")
    assert platform.there.shown() == []
    with pytest.raises(ChannelRefusedError) as refused:
        await editor.edit(str(sent.reference), HELLO)
    assert refused.value.permanent


async def test_a_topic_of_a_group_is_written_to(platform: Telegram) -> None:
    await platform.channel.send(SendRequest("d_1", "-100123/7", "hello"))
    assert platform.there.shown("-100123", 7) == ["hello"]


async def test_a_sign_is_put(platform: Telegram) -> None:
    reactions = platform.adapter.reactions
    assert reactions is not None
    await reactions.react("2001", "2001:7", "eyes")
    assert platform.there.signs == [("2001", 7, "👀")]


@pytest.mark.parametrize(
    ("status", "why"), [(400, "chat not found"), (403, "bot was blocked"), (401, "Unauthorized"), (404, "Not Found")]
)
async def test_what_people_have_to_mend_is_refused_for_good(platform: Telegram, status: int, why: str) -> None:
    platform.there.refuse("sendMessage", status, why)
    with pytest.raises(ChannelRefusedError, match=why) as refused:
        await platform.channel.send(HELLO)
    assert refused.value.permanent


async def test_a_limit_is_told_with_its_pause_and_nothing_is_tried_again_here(platform: Telegram) -> None:
    platform.there.refuse("sendMessage", 429, "Too Many Requests: retry after 37", retry_after=37)
    with pytest.raises(ChannelRefusedError) as refused:
        await platform.channel.send(HELLO)
    assert (refused.value.permanent, refused.value.retry_after_s) == (False, 37.0)
    assert platform.there.calls == ["sendMessage"]


@pytest.mark.parametrize("how", ["502", "cut", "no answer of Telegram's"])
async def test_whatever_may_have_been_done_is_unknown(platform: Telegram, how: str) -> None:
    fault = {"502": Fault(502), "cut": Fault(done=True, cut=True)}.get(how, Fault(418))
    platform.there.fault("sendMessage", fault)
    with pytest.raises(SendUnknownError) as unknown:
        await platform.channel.send(HELLO)
    assert TOKEN not in repr(unknown.value)
    assert platform.there.calls == ["sendMessage"]


async def test_the_token_which_stands_in_addresses_is_in_no_line_of_the_log(
    platform: Telegram, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await platform.channel.send(HELLO)
    assert TOKEN not in caplog.text


async def test_telegram_that_cannot_be_reached_has_refused() -> None:
    adapter = make(Setup("telegram", {**OPTIONS, "api_url": "http://127.0.0.1:9"}, ENV))
    with pytest.raises(ChannelRefusedError, match="no connection") as refused:
        await adapter.channel.send(HELLO)
    assert not refused.value.permanent
    assert TOKEN not in repr(refused.value)
    assert adapter.close is not None
    await adapter.close()


async def test_a_token_that_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="TELEGRAM_BOT_TOKEN"):
        make(Setup("telegram", OPTIONS, {}))
