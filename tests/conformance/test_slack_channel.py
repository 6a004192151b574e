"""Slack's adapter does what every channel does, through slack-sdk against a stand-in of Slack's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast.channel.channel import Channel, SendRequest, Sent
from holdfast.channel.listening import Adapter, Setup
from holdfast.channel.slack import make
from holdfast.errors import ChannelRefusedError, InputError, SendUnknownError
from holdfast.testing.channel_suite import ChannelSuite
from tests.platforms.slack import ENV, SlackStandIn, slack_stand_in

USUAL = {
    "bot_token_env": "SLACK_BOT_TOKEN", "app_token_env": "SLACK_APP_TOKEN",
    "signing_secret_env": "SLACK_SIGNING_SECRET", "mode": "http",
}  # fmt: skip


class Slack:
    """The platform of the suite."""

    target = "C1"

    def __init__(self, there: SlackStandIn, adapter: Adapter) -> None:
        self.there, self.adapter = there, adapter

    @property
    def channel(self) -> Channel:
        return self.adapter.channel

    def shown(self) -> str:
        return "\n".join(self.there.shown("C1"))

    def fail(self) -> None:
        self.there.archived.add("C1")


def adapter_for(there: SlackStandIn, **options: Any) -> Adapter:
    return make(Setup("slack", {**USUAL, **there.table(**options)}, ENV))


@pytest.fixture
async def platform() -> AsyncIterator[Slack]:
    async with slack_stand_in(page_max=3) as there:
        adapter = adapter_for(there)
        yield Slack(there, adapter)
        assert adapter.close is not None
        await adapter.close()


class TestSlack(ChannelSuite):
    """The suite; its fixture is the module's."""


HELLO = SendRequest("d_1", "C1", "hello")


async def test_a_message_into_a_thread_is_found_there(platform: Slack) -> None:
    root = platform.there.event("root", channel="C1", kind="channel")["event"]["ts"]
    target = f"C1/{root}"
    for number in range(5):
        await platform.channel.send(SendRequest(f"d_{number}", target, f"text {number}"))
    assert platform.there.shown("C1", root) == [f"text {number}" for number in range(5)]
    assert isinstance(await platform.channel.find("d_4", target), Sent)
    assert await platform.channel.find("d_9", target) is None
    assert await platform.channel.find("d_4", "C1") is None, "it is not in the channel itself"


async def test_a_person_is_written_to_and_their_conversation_read(platform: Slack) -> None:
    sent = await platform.channel.send(SendRequest("d_1", "U7", "hello"))
    assert await platform.channel.find("d_1", "U7") == sent


async def test_further_back_than_it_looks_nobody_can_tell(platform: Slack) -> None:
    await platform.channel.send(HELLO)
    for number in range(3 * 5):
        platform.there.event(f"talk {number}", channel="C1", kind="channel")
    with pytest.raises(SendUnknownError, match="there are more"):
        await platform.channel.find("d_1", "C1")


async def test_an_edit_is_seen_and_makes_a_preview_the_answer(platform: Slack) -> None:
    editor = platform.adapter.editor
    assert editor is not None
    sent = await platform.channel.send(SendRequest("d_1", "C1", "hel", preview=True))
    assert await platform.channel.find("d_1", "C1") == Sent(sent.reference, preview=True)
    await editor.edit(str(sent.reference), HELLO)
    await editor.edit(str(sent.reference), HELLO)
    assert await platform.channel.find("d_1", "C1") == Sent(sent.reference)
    assert platform.there.shown("C1") == ["hello"]
    await editor.remove(str(sent.reference), "C1")
    await editor.remove(str(sent.reference), "C1")
    assert platform.there.shown("C1") == []
    with pytest.raises(ChannelRefusedError) as refused:
        await editor.edit(str(sent.reference), HELLO)
    assert refused.value.permanent


async def test_a_sign_is_put_once(platform: Slack) -> None:
    reactions = platform.adapter.reactions
    assert reactions is not None
    await reactions.react("C1", "C1:1.2", "eyes")
    await reactions.react("C1", "C1:1.2", ":eyes:")
    assert platform.there.signs == [("C1", "1.2", "eyes")]


@pytest.mark.parametrize(
    "error", ["channel_not_found", "is_archived", "not_in_channel", "token_revoked", "invalid_auth", "missing_scope"]
)
async def test_what_people_have_to_mend_is_refused_for_good(platform: Slack, error: str) -> None:
    platform.there.refuse("chat.postMessage", error)
    with pytest.raises(ChannelRefusedError, match=error) as refused:
        await platform.channel.send(HELLO)
    assert refused.value.permanent


async def test_a_limit_is_told_with_its_pause_and_nothing_is_tried_again_here(platform: Slack) -> None:
    platform.there.limit("chat.postMessage", 37)
    with pytest.raises(ChannelRefusedError, match="ratelimited") as refused:
        await platform.channel.send(HELLO)
    assert (refused.value.permanent, refused.value.retry_after_s) == (False, 37.0)
    assert platform.there.calls == ["chat.postMessage"]


async def test_an_error_nobody_knows_is_refused_and_may_pass(platform: Slack) -> None:
    platform.there.refuse("chat.postMessage", "accesslimited")
    with pytest.raises(ChannelRefusedError) as refused:
        await platform.channel.send(HELLO)
    assert not refused.value.permanent


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("how", ["500", "internal_error", "cut"])
async def test_whatever_may_have_been_done_is_unknown_and_found(platform: Slack, how: str, done: bool) -> None:
    there = platform.there
    if how == "cut":
        there._fault("chat.postMessage", _fault(cut=True, done=done))
    elif how == "500":
        there.fail("chat.postMessage", 500, done=done)
    else:
        there._fault("chat.postMessage", _fault(error="internal_error", done=done))
    with pytest.raises(SendUnknownError):
        await platform.channel.send(HELLO)
    assert there.calls == ["chat.postMessage"], "nothing is tried again in here"
    assert (await platform.channel.find("d_1", "C1") is not None) == done


async def test_slack_that_cannot_be_reached_has_refused(platform: Slack) -> None:
    adapter = make(Setup("slack", {**USUAL, "api_url": "http://127.0.0.1:9/api/"}, ENV))
    with pytest.raises(ChannelRefusedError, match="no connection") as refused:
        await adapter.channel.send(HELLO)
    assert not refused.value.permanent
    assert adapter.close is not None
    await adapter.close()


async def test_a_cancelled_send_closes_its_connection(platform: Slack) -> None:
    answer = platform.there.hold("chat.postMessage")
    sending = asyncio.create_task(platform.channel.send(HELLO))
    await platform.there.until(lambda: platform.there.calls == ["chat.postMessage"])
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    answer.set()
    assert isinstance(await platform.channel.find("d_1", "C1"), Sent)


@pytest.mark.parametrize(("mode", "missing"), [("http", "SLACK_SIGNING_SECRET"), ("socket", "SLACK_APP_TOKEN")])
async def test_a_secret_that_is_missing_is_named(mode: str, missing: str) -> None:
    env = {name: value for name, value in ENV.items() if name != missing}
    with pytest.raises(InputError, match=missing):
        make(Setup("slack", {**USUAL, "mode": mode}, env))


def _fault(**facts: Any) -> Any:
    from tests.platforms.slack import Fault

    return Fault(**facts)
