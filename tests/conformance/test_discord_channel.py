"""Discord's adapter does what every channel does, through discord.py against a stand-in of Discord's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast.channel.channel import Channel, SendRequest
from holdfast.channel.discord import make, nonce_of
from holdfast.channel.listening import Adapter, Setup
from holdfast.errors import ChannelRefusedError, InputError, SendUnknownError
from holdfast.outbox.outbox import POSSIBLE_DUPLICATE
from holdfast.testing.channel_suite import ChannelSuite
from tests.platforms.discord import DM, ENV, GENERAL, U1, U9, DiscordStandIn, Fault, discord_stand_in


class Discord:
    """The platform of the suite."""

    target = GENERAL

    def __init__(self, there: DiscordStandIn, adapter: Adapter) -> None:
        self.there, self.adapter = there, adapter

    @property
    def channel(self) -> Channel:
        return self.adapter.channel

    def shown(self) -> str:
        return "\n".join(self.there.shown(GENERAL))

    def fail(self) -> None:
        del self.there.channels[GENERAL]


def adapter_for(there: DiscordStandIn, **options: Any) -> Adapter:
    return make(Setup("discord", {"token_env": "DISCORD_BOT_TOKEN", **there.table(**options)}, ENV))


@pytest.fixture
async def platform() -> AsyncIterator[Discord]:
    async with discord_stand_in() as there:
        adapter = adapter_for(there)
        yield Discord(there, adapter)
        assert adapter.close is not None
        await adapter.close()


class TestDiscord(ChannelSuite):
    """The suite; its fixture is the module's."""


HELLO = SendRequest("d_1", GENERAL, "hello")


async def test_a_person_is_written_to_in_their_conversation(platform: Discord) -> None:
    await platform.channel.send(SendRequest("d_1", f"@{U1}", "hello"))
    assert platform.there.shown(DM) == ["hello"]


async def test_a_thread_is_begun_under_a_message_and_gone_on_with(platform: Discord) -> None:
    there = platform.there
    root = there.event("what is a\nthread?", channel=GENERAL)["id"]
    for number in range(2):
        await platform.channel.send(SendRequest(f"d_{number}", f"{GENERAL}/{root}", f"text {number}"))
    assert there.channels[root]["name"] == "what is a thread?"
    assert there.shown(root) == ["text 0", "text 1"]
    again = adapter_for(there)  # which knows nothing of it
    await again.channel.send(SendRequest("d_2", f"{GENERAL}/{root}", "text 2"))
    assert there.shown(root)[-1] == "text 2"
    assert again.close is not None
    await again.close()


async def test_where_a_message_is_gone_its_thread_is_taken_or_its_channel(platform: Discord) -> None:
    there = platform.there
    there.thread(thread="777")
    await platform.channel.send(SendRequest("d_1", f"{GENERAL}/777", "in the thread"))
    await platform.channel.send(SendRequest("d_2", f"{GENERAL}/778", "in the channel"))
    assert (there.shown("777"), there.shown(GENERAL)) == (["in the thread"], ["in the channel"])


async def test_nothing_that_goes_out_calls_anybody_and_no_preview_of_links_is_shown(platform: Discord) -> None:
    await platform.channel.send(SendRequest("d_1", GENERAL, "@everyone https://example.org"))
    [posted] = platform.there.posted
    assert posted["allowed_mentions"]["parse"] == []
    assert posted["flags"] == 1 << 2


async def test_the_same_key_again_makes_no_second_message(platform: Discord) -> None:
    first = await platform.channel.send(HELLO)
    assert await platform.channel.send(HELLO) == first
    assert await platform.channel.send(SendRequest("d_1", GENERAL, "hello", POSSIBLE_DUPLICATE)) == first
    assert platform.there.shown(GENERAL) == ["hello"]
    assert platform.there.calls.count("PATCH messages") == 0


async def test_what_a_key_has_shown_before_becomes_the_answer(platform: Discord) -> None:
    first = await platform.channel.send(SendRequest("d_1", GENERAL, "hel", preview=True))
    assert await platform.channel.send(HELLO) == first
    assert platform.there.shown(GENERAL) == ["hello"]


async def test_a_message_that_somebody_took_away_is_sent_anew(platform: Discord) -> None:
    first = await platform.channel.send(HELLO)
    editor = platform.adapter.editor
    assert editor is not None
    await editor.remove(str(first.reference), GENERAL)
    second = await platform.channel.send(HELLO)
    assert await platform.channel.send(HELLO) == second != first
    assert platform.there.shown(GENERAL) == ["hello"]


def test_keys_that_differ_have_nonces_that_differ_and_fit() -> None:
    keys = [f"d_{'0' * 26}", f"d_{'0' * 26}.1899", f"d_{'0' * 25}1"]
    assert len({nonce_of(key) for key in keys}) == 3
    assert all(len(nonce_of(key)) <= 25 for key in keys)


async def test_an_edit_is_seen_and_one_of_a_message_that_is_gone_is_refused(platform: Discord) -> None:
    editor = platform.adapter.editor
    assert editor is not None
    sent = await platform.channel.send(SendRequest("d_1", GENERAL, "hel", preview=True))
    await editor.edit(str(sent.reference), HELLO)
    await editor.edit(str(sent.reference), HELLO)
    assert platform.there.shown(GENERAL) == ["hello"]
    await editor.remove(str(sent.reference), GENERAL)
    await editor.remove(str(sent.reference), GENERAL)
    assert platform.there.shown(GENERAL) == []
    with pytest.raises(ChannelRefusedError) as refused:
        await editor.edit(str(sent.reference), HELLO)
    assert refused.value.permanent


async def test_a_sign_is_put_once(platform: Discord) -> None:
    reactions = platform.adapter.reactions
    assert reactions is not None
    for sign in ("eyes", ":eyes:", "👀"):
        await reactions.react(GENERAL, f"{GENERAL}:12", sign)
    assert platform.there.signs == [(GENERAL, "12", "👀")]


@pytest.mark.parametrize(
    ("status", "code"), [(401, 0), (403, 50001), (403, 50007), (403, 50013), (404, 10003), (400, 50035)]
)
async def test_what_people_have_to_mend_is_refused_for_good(platform: Discord, status: int, code: int) -> None:
    platform.there.refuse("POST messages", status, code, "because")
    with pytest.raises(ChannelRefusedError, match=rf"{status} because \({code}\)") as refused:
        await platform.channel.send(HELLO)
    assert refused.value.permanent


@pytest.mark.parametrize("target", ["general", "@ann", f"{GENERAL}/x", "", "-1"])
async def test_a_target_that_is_no_id_is_refused_for_good(platform: Discord, target: str) -> None:
    with pytest.raises(ChannelRefusedError, match="no id") as refused:
        await platform.channel.send(SendRequest("d_1", target, "hello"))
    assert refused.value.permanent
    assert platform.there.posted == []


async def test_a_limit_is_told_with_its_pause_and_kept_without_asking_again(platform: Discord) -> None:
    platform.there.limit("POST messages", 37.5)
    for calls in (1, 1):
        with pytest.raises(ChannelRefusedError) as refused:
            await platform.channel.send(HELLO)
        assert not refused.value.permanent
        assert refused.value.retry_after_s == pytest.approx(37.5, abs=2)
        assert platform.there.calls.count("POST messages") == calls
    await platform.channel.send(SendRequest("d_2", f"@{U9}", "another conversation has a limit of its own"))


async def test_a_limit_for_everything_is_kept_everywhere(platform: Discord) -> None:
    platform.there.limit("POST messages", 30, everywhere=True)
    for target in (GENERAL, DM):
        with pytest.raises(ChannelRefusedError):
            await platform.channel.send(SendRequest("d_1", target, "hello"))
    assert platform.there.calls == ["POST messages"]


async def test_a_limit_that_is_used_up_is_waited_for_before_anything_goes_out(platform: Discord) -> None:
    loop = asyncio.get_running_loop()
    platform.there.use_up("POST messages", 0.3)
    await platform.channel.send(HELLO)
    began = loop.time()
    await platform.channel.send(SendRequest("d_2", GENERAL, "again"))
    assert loop.time() - began >= 0.25
    assert platform.there.shown(GENERAL) == ["hello", "again"]


async def test_an_address_that_is_turned_away_asks_nothing_more_for_a_while(platform: Discord) -> None:
    platform.there._fault("POST messages", Fault(403, body=None))
    for _ in range(2):
        with pytest.raises(ChannelRefusedError) as refused:
            await platform.channel.send(HELLO)
        assert not refused.value.permanent
        assert refused.value.retry_after_s is not None
        assert refused.value.retry_after_s > 500
    assert platform.there.calls == ["POST messages"]


async def test_an_error_nobody_knows_is_refused_and_may_pass(platform: Discord) -> None:
    platform.there.refuse("POST messages", 409, 99999)
    with pytest.raises(ChannelRefusedError) as refused:
        await platform.channel.send(HELLO)
    assert not refused.value.permanent


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("how", ["500", "502", "cut"])
async def test_whatever_may_have_been_done_is_unknown_and_done_once(platform: Discord, how: str, done: bool) -> None:
    there = platform.there
    there._fault("POST messages", Fault(cut=True, done=done) if how == "cut" else Fault(int(how), done=done))
    with pytest.raises(SendUnknownError):
        await platform.channel.send(HELLO)
    assert there.calls == ["POST messages"], "nothing is tried again in here"
    await platform.channel.send(HELLO)
    assert there.shown(GENERAL) == ["hello"]


async def test_a_thread_that_could_not_be_begun_leaves_no_doubt(platform: Discord) -> None:
    root = platform.there.event("hello", channel=GENERAL)["id"]
    platform.there.lose_answer("POST threads")
    request = SendRequest("d_1", f"{GENERAL}/{root}", "text")
    with pytest.raises(ChannelRefusedError, match="thread") as refused:
        await platform.channel.send(request)
    assert not refused.value.permanent
    await platform.channel.send(request)
    assert platform.there.shown(root) == ["text"]


async def test_discord_that_cannot_be_reached_has_refused(platform: Discord) -> None:
    adapter = make(Setup("discord", {"token_env": "DISCORD_BOT_TOKEN", "api_url": "http://127.0.0.1:9/api"}, ENV))
    with pytest.raises(ChannelRefusedError, match="no connection") as refused:
        await adapter.channel.send(HELLO)
    assert not refused.value.permanent
    assert adapter.close is not None
    await adapter.close()


async def test_a_cancelled_send_closes_its_connection(platform: Discord) -> None:
    answer = platform.there.hold("POST messages")
    sending = asyncio.create_task(platform.channel.send(HELLO))
    await platform.there.until(lambda: platform.there.calls == ["POST messages"])
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    answer.set()
    await platform.channel.send(HELLO)
    assert platform.there.shown(GENERAL) == ["hello"]


async def test_a_token_that_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="DISCORD_BOT_TOKEN"):
        make(Setup("discord", {"token_env": "DISCORD_BOT_TOKEN"}, {}))
