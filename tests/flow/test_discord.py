"""Discord from end to end: a gateway, discord.py and a stand-in of Discord over sockets, with what goes wrong there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.channel.discord import intents_of
from holdfast.channel.discord_socket import DiscordSocket
from holdfast.channel.discord_web import DiscordWeb
from holdfast.channel.listening import Hear, Heard, Receipt
from holdfast.config import Config
from holdfast.errors import ChannelRefusedError, ResourceError, SendUnknownError
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import Served, served
from holdfast.testing.world import echo
from tests.flow.test_streaming import ANSWER, BEGIN, Halting
from tests.platforms.discord import (
    DM,
    ENV,
    GENERAL,
    MESSAGE_CONTENT,
    TOKEN,
    U1,
    U2,
    U9,
    DiscordStandIn,
    discord_stand_in,
    quick_adapter,
)

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32


def config_of(discord: DiscordStandIn, options: dict[str, Any], **own: Any) -> Config:
    table = {"dm": "open", "groups": "open", "discord": discord.table(**options), **own}
    return Config.model_validate({"channels": {"discord": table}})


@asynccontextmanager
async def talking(
    tmp_path: Path,
    options: dict[str, Any] | None = None,
    *,
    model: ScriptedModel | None = None,
    quick: bool = False,
    keeps_keys_s: float = 120.0,
    **own: Any,
) -> AsyncIterator[tuple[DiscordStandIn, Served]]:
    """A gateway that listens to the stand-in. quick: a send without an answer is made again after a second."""
    async with (
        discord_stand_in() as discord,
        served(
            tmp_path,
            model=model or ScriptedModel(otherwise=echo),
            config=config_of(discord, options or {}, **own),
            env=ENV,
            adapters={"discord": quick_adapter(discord, keeps_keys_s=keeps_keys_s)} if quick else {},
        ) as gateway,
    ):
        await discord.listened()
        yield discord, gateway


async def delivered(gateway: Served, count: int = 1) -> list[str]:
    """States of the deliveries, once there are so many and none is under way."""
    async with asyncio.timeout(60):
        while True:
            rows = await gateway.hf.deliveries()
            if len(rows) >= count and all(row.state in ("sent", "failed") for row in rows):
                return [row.state for row in rows]
            await asyncio.sleep(0.02)


async def seen(gateway: Served, state: str) -> str:
    """What is told of the channel, once it is in a state."""
    async with asyncio.timeout(30):
        while True:
            for one in await gateway.hf.store.listeners():
                if one.state == state:
                    return one.detail or ""
            await asyncio.sleep(0.02)


# ── talking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_direct_message_is_answered(tmp_path: Path) -> None:
    async with talking(tmp_path, reaction="eyes") as (discord, gateway):
        said = await discord.says("hello")
        await discord.shows("re: hello")
        assert await delivered(gateway) == ["sent"]
        assert discord.signs == [(DM, said["id"], "👀")]
        [view] = await gateway.hf.inputs(limit=10)
        assert (view.session, view.source) == (f"agent:main:discord:direct:{U1}", "channel:discord")


async def test_in_a_server_it_answers_who_speaks_to_it_in_their_channel_or_thread(tmp_path: Path) -> None:
    async with talking(tmp_path) as (discord, gateway):
        thread = discord.thread()
        await discord.says("nothing for you", channel=GENERAL)
        await discord.says("<@1001> hello", channel=GENERAL)
        await discord.shows(f"re: [Name of {U1}] hello", channel=GENERAL)
        answer = discord.messages[-1]
        await discord.says("and?", channel=GENERAL, user=U2, reply_to=answer)
        await discord.shows(f"re: [Name of {U2}] and?", channel=GENERAL)
        await discord.says("<@!1001> <@1001> here?", channel=thread)
        await discord.says("nobody repeats the name", channel=thread)
        await discord.shows(f"re: [Name of {U1}] nobody repeats the name", channel=thread)
        sessions = {view.session for view in await gateway.hf.inputs(limit=10)}
        place = f"agent:main:discord:channel:{GENERAL}"
        assert sessions == {place, f"{place}:thread:{thread}"}
        assert discord.calls.count("GET channels") == 2


async def test_each_question_in_a_channel_can_have_a_thread_of_its_own(tmp_path: Path) -> None:
    async with talking(tmp_path, {"reply_in_thread": "always"}) as (discord, gateway):
        root = (await discord.says("<@1001> hello", channel=GENERAL))["id"]
        await discord.shows(f"re: [Name of {U1}] hello", channel=root)
        await discord.says("and?", channel=root)
        await discord.shows(f"re: [Name of {U1}] and?", channel=root)
        sessions = {view.session for view in await gateway.hf.inputs(limit=10)}
        assert sessions == {f"agent:main:discord:channel:{GENERAL}:thread:{root}"}
        assert root in discord.typing


async def test_programs_and_strangers_are_not_listened_to(tmp_path: Path) -> None:
    async with talking(tmp_path, dm="pairing") as (discord, gateway):
        await discord.says("a relay", channel=GENERAL, webhook_id="8001")
        discord.channels["6009"] = {"id": "6009", "type": 1}
        await discord.says("hello", user=U9, channel="6009")
        assert await delivered(gateway) == ["sent"]
        [pairing] = await gateway.hf.store.pairings(channel="discord", limit=10)
        assert pairing.sender == U9
        assert pairing.code in discord.shown("6009")[0]
        assert {one.reason for one in await gateway.hf.store.turned_away(limit=10)} == {"bot", "pairing_pending"}


async def test_a_picture_is_shown_to_the_model_and_none_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    model = ScriptedModel("I see", "I do not")
    async with talking(tmp_path, model=model) as (discord, _):
        discord.files["cat.png"] = PNG
        url = discord.url.replace("/api", "/files/cat.png")
        file = {"filename": "cat.png", "content_type": "image/png", "size": len(PNG), "url": url}
        await discord.says("look", attachments=[file])
        await discord.shows("I see")
        assert "image" in str(model.requests[0].messages)
        await discord.says("and here", attachments=[{**file, "url": "http://127.0.0.1:9/cat.png"}])
        await discord.shows("I do not")
        assert "cat.png" in str(model.requests[1].messages[-1])


async def test_a_long_answer_goes_out_in_pieces_with_their_code_whole(tmp_path: Path) -> None:
    code = "```python\n" + "\n".join(f"line_{number} = {number}" for number in range(400)) + "\n```"
    async with talking(tmp_path, model=ScriptedModel(f"Here it is:\n\n{code}\n\nThat was it.")) as (discord, gateway):
        await discord.says("hello")
        assert await delivered(gateway) == ["sent"]
        shown = discord.shown()
        assert len(shown) > 2
        assert all(len(text) <= 2000 and text.count("```") % 2 == 0 for text in shown)
        assert sum(text.count("line_") for text in shown) == 400


# ── answers whose fate is unknown ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.promise("P4")
@pytest.mark.parametrize("done", [True, False])
async def test_an_answer_whose_confirmation_is_lost_is_shown_once(tmp_path: Path, done: bool) -> None:
    async with talking(tmp_path, quick=True) as (discord, gateway):
        if done:
            discord.lose_answer("POST messages")
        else:
            discord.fail("POST messages", 502, done=False)
        await discord.says("hello")
        assert await delivered(gateway) == ["sent"]
        assert discord.shown() == ["re: hello"]
        assert discord.calls.count("POST messages") == 2
        [row] = await gateway.hf.deliveries()
        assert row.label is None


@pytest.mark.promise("P4")
async def test_an_answer_whose_confirmation_is_lost_twice_is_shown_once(tmp_path: Path) -> None:
    async with talking(tmp_path, quick=True) as (discord, gateway):
        discord.fail("POST messages", 503, done=False)
        discord.lose_answer("POST messages")
        await discord.says("hello")
        assert await delivered(gateway) == ["sent"]
        assert discord.shown() == ["re: hello"]
        assert discord.calls.count("POST messages") == 3


@pytest.mark.promise("P4")
async def test_once_discord_has_forgotten_the_key_a_second_copy_is_labelled(tmp_path: Path) -> None:
    async with talking(tmp_path, quick=True, keeps_keys_s=1.0) as (discord, gateway):
        discord.lose_answer("POST messages")
        await discord.says("hello")
        await discord.shows("re: hello")
        discord.nonces.clear()
        assert await delivered(gateway) == ["sent"]
        assert discord.shown() == ["re: hello", "(may be a duplicate) re: hello"]


@pytest.mark.promise("P4")
@pytest.mark.parametrize("lost", ["nothing", "the beginning", "an edit on the way", "the last edit"])
async def test_an_answer_is_shown_while_it_is_written_and_stays_one_message(tmp_path: Path, lost: str) -> None:
    model = Halting(ANSWER)
    async with talking(tmp_path, model=model, quick=True, streaming="partial") as (discord, gateway):
        if lost == "the beginning":
            discord.lose_answer("POST messages")
        await discord.says("<@1001> hello", channel=GENERAL)
        await discord.shows(f"{BEGIN} …", channel=GENERAL)
        assert GENERAL in discord.typing
        if lost == "an edit on the way":
            discord.fail("PATCH messages", 500, done=False)
        elif lost == "the last edit":
            discord.lose_answer("PATCH messages")
        model.may_go_on.set()
        assert await delivered(gateway) == ["sent"]
        assert discord.shown(GENERAL) == [ANSWER]


async def test_a_channel_that_is_gone_ends_the_delivery_with_its_reason(tmp_path: Path) -> None:
    async with talking(tmp_path) as (discord, gateway):
        event = discord.event("hello")
        del discord.channels[DM]
        await discord.tell(event)
        assert await delivered(gateway) == ["failed"]
        [row] = await gateway.hf.deliveries()
        assert "Unknown Channel" in (row.detail or "")


# ── the connection ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["cut", "reconnect", "invalid, resumable"])
async def test_a_connection_that_is_lost_is_resumed_and_what_was_said_meanwhile_is_heard(
    tmp_path: Path, how: str
) -> None:
    async with talking(tmp_path) as (discord, gateway):
        await discord.says("one")
        await discord.shows("re: one")
        if how == "cut":
            discord.cut()
        elif how == "reconnect":
            await discord.ask_to_reconnect()
        else:
            await discord.invalidate(resumable=True)
        await discord.until(lambda: not discord.links, "the connection is gone")
        await discord.says("two")
        await discord.shows("re: two")
        assert await delivered(gateway, 2) == ["sent", "sent"]
        assert (discord.identified, discord.resumed) == (1, 1)
        assert len(await gateway.hf.inputs(limit=10)) == 2


async def test_a_session_that_has_ended_is_followed_by_a_new_one(tmp_path: Path) -> None:
    async with talking(tmp_path) as (discord, _):
        await discord.invalidate(resumable=False)
        await discord.until(lambda: discord.identified == 2, "a new session")
        await discord.says("hello")
        await discord.shows("re: hello")


async def test_what_discord_tells_twice_is_one_message(tmp_path: Path) -> None:
    async with talking(tmp_path) as (discord, gateway):
        await discord.says("hello", times=3)
        await discord.says("and?")
        await discord.shows("re: and?")
        assert len(await gateway.hf.inputs(limit=10)) == 2
        assert await delivered(gateway, 2) == ["sent", "sent"]


async def test_a_token_that_is_not_valid_is_told_and_not_hammered(tmp_path: Path) -> None:
    async with discord_stand_in() as discord:
        discord.token = "another"
        async with served(tmp_path, config=config_of(discord, {}), env=ENV) as gateway:
            assert "401" in await seen(gateway, "refused")
            assert discord.calls == ["GET gateway"]
            assert TOKEN not in str(await gateway.hf.store.listeners())


async def test_intents_that_are_not_allowed_are_told_with_the_way_out(tmp_path: Path) -> None:
    async with discord_stand_in() as discord:
        discord.allowed_intents = ~MESSAGE_CONTENT
        async with served(tmp_path, config=config_of(discord, {}), env=ENV) as gateway:
            assert "Message Content Intent" in await seen(gateway, "refused")


async def test_without_reading_everything_it_hears_what_names_it(tmp_path: Path) -> None:
    async with talking(tmp_path, {"message_content": False}) as (discord, _):
        discord.allowed_intents = ~MESSAGE_CONTENT
        await discord.says("<@1001> hello", channel=GENERAL)
        await discord.shows(f"re: [Name of {U1}] hello", channel=GENERAL)


async def test_the_next_gateway_hears_what_was_said_while_there_was_none(tmp_path: Path) -> None:
    async with discord_stand_in() as discord:
        for text, said in (("one", 1), ("two", 2)):
            model = ScriptedModel(otherwise=echo)
            await discord.says(text)
            async with served(tmp_path, model=model, config=config_of(discord, {}), env=ENV) as gateway:
                await discord.listened()
                if said == 1:  # there was no session yet in which it could be told
                    await discord.says("one")
                await discord.shows(f"re: {text}")
                assert await delivered(gateway, said) == ["sent"] * said
            await discord.until(lambda: not discord.links, "nobody listens")
        assert (discord.identified, discord.resumed) == (1, 1)


# ── what is heard, and what of it Discord is told ────────────────────────────────────────────────────────────────────


class Listening:
    """The socket alone. `refuse`: raised for the next things that are heard."""

    def __init__(self, discord: DiscordStandIn, **options: Any) -> None:
        self.adapter = quick_adapter(discord, **options)
        assert isinstance(self.adapter.listener, DiscordSocket)
        self.socket = self.adapter.listener
        self.heard: list[str] = []
        self.refuse: list[Exception] = []
        self.may_store = asyncio.Event()
        self.may_store.set()
        self._changed = asyncio.Event()

    async def hear(self, heard: Heard) -> Receipt:
        await self.may_store.wait()
        if self.refuse:
            raise self.refuse.pop(0)
        self.heard.append(heard.text)
        self._changed.set()
        return Receipt("taken", "i_1")

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    async def run(self, act: Callable[[], Awaitable[None]], *, ends: bool = False) -> BaseException | None:
        """How `listen` ended (waited for, where it is to end), or None: it did not, and was cancelled."""
        listening = asyncio.create_task(self.socket.listen(self.hear))
        try:
            await act()
            if ends:
                await asyncio.wait({listening}, timeout=30)
        finally:
            listening.cancel()
            [ended] = await asyncio.gather(listening, return_exceptions=True)
        return None if isinstance(ended, asyncio.CancelledError) else ended


@asynccontextmanager
async def listening_to(discord: DiscordStandIn, **options: Any) -> AsyncIterator[Listening]:
    one = Listening(discord, **options)
    try:
        yield one
    finally:
        assert one.adapter.close is not None
        await one.adapter.close()


async def test_discord_is_told_of_nothing_that_is_not_stored() -> None:
    async with discord_stand_in(heartbeat_s=0.05) as discord, listening_to(discord) as one:

        async def act() -> None:
            await discord.listened()
            [session] = discord.sessions.values()
            one.may_store.clear()
            await discord.says("one")
            calls = len(session.told)
            for _ in range(3):
                await discord.ask_for_heartbeat()
            await discord.until(lambda: session.heard == calls - 1, "everything before it")
            one.may_store.set()
            await discord.until(lambda: session.heard == calls, "that too")

        assert await one.run(act) is None
        assert one.heard == ["one"]


async def test_what_could_not_be_stored_ends_listening_and_is_told_again() -> None:
    async with discord_stand_in() as discord, listening_to(discord) as one:
        one.refuse.append(ResourceError("disk full"))

        async def act() -> None:
            await discord.listened()
            for text in ("one", "two", "three"):
                await discord.says(text)
            await discord.until(lambda: not discord.links, "it has ended")

        assert isinstance(await one.run(act, ends=True), ResourceError)

        async def again() -> None:
            await one.until(lambda: one.heard[-1:] == ["three"])

        one.heard.clear()
        assert await one.run(again) is None
        assert one.heard == ["one", "two", "three"]
        assert (discord.identified, discord.resumed) == (1, 1)


async def test_messages_of_a_conversation_keep_their_order_while_others_are_not_held_up() -> None:
    async with discord_stand_in() as discord, listening_to(discord) as one:
        answer = discord.hold("GET channels")

        async def act() -> None:
            await discord.listened()
            for number in range(3):
                await discord.says(f"<@1001> group {number}", channel=GENERAL)
                await discord.says(f"direct {number}")
            await one.until(lambda: len(one.heard) == 3)
            assert one.heard == ["direct 0", "direct 1", "direct 2"]
            answer.set()
            await one.until(lambda: len(one.heard) == 6)

        assert await one.run(act) is None
        assert one.heard[3:] == ["group 0", "group 1", "group 2"]


async def test_a_connection_on_which_nothing_comes_any_more_is_given_up() -> None:
    async with discord_stand_in(heartbeat_s=0.2) as discord, listening_to(discord, silence_s=0.8) as one:

        async def act() -> None:
            await discord.listened()
            discord.fall_silent()
            await discord.says("said while nobody hears")
            await discord.until(lambda: not discord.links, "it was closed")

        assert isinstance(await one.run(act, ends=True), SendUnknownError)

        async def again() -> None:
            await one.until(lambda: one.heard == ["said while nobody hears"])

        assert await one.run(again) is None
        assert discord.resumed == 1


async def test_a_session_outlives_an_end_in_order() -> None:
    async with discord_stand_in() as discord, listening_to(discord) as one:

        async def act() -> None:
            await discord.listened()
            await discord.says("hello")
            await one.until(lambda: one.heard == ["hello"])

        assert await one.run(act) is None
        await discord.until(lambda: not discord.links, "closed")
        await discord.says("said in between")

        async def again() -> None:
            await one.until(lambda: one.heard[-1] == "said in between")

        assert await one.run(again) is None
        assert (discord.identified, discord.resumed) == (1, 1)


@pytest.mark.parametrize(
    "position",
    ["", "nonsense", "[]", '["s", "", "1", 37377]', '["s", "", -1, 37377]', '["", "", 1, 37377]', '["s", "", 1]', "7"],
)
async def test_a_position_that_cannot_be_read_is_none(position: str) -> None:
    socket = DiscordSocket(DiscordWeb(TOKEN, None, {}), intents_of(message_content=True), _nothing)
    socket.resume_from(position)
    assert socket.position is None


async def test_a_position_leads_nobody_astray() -> None:
    socket = DiscordSocket(DiscordWeb(TOKEN, None, {}), intents_of(message_content=True), _nothing)
    socket.resume_from('["s", "wss://example.org", 7, 37377]')
    assert socket.position == '["s", "", 7, 37377]'


async def test_a_session_that_was_told_of_less_is_not_gone_on_with(tmp_path: Path) -> None:
    async with discord_stand_in() as discord:
        for message_content in (False, True):
            model = ScriptedModel(otherwise=echo)
            config = config_of(discord, {"message_content": message_content}, mention=False)
            async with served(tmp_path, model=model, config=config, env=ENV):
                await discord.listened()
                await discord.says("hello", channel=GENERAL)
                if message_content:
                    await discord.shows(f"re: [Name of {U1}] hello", channel=GENERAL)
            await discord.until(lambda: not discord.links, "nobody listens")
        assert (discord.identified, discord.resumed) == (2, 0)


async def test_no_session_is_begun_when_too_many_were() -> None:
    async with discord_stand_in() as discord, listening_to(discord) as one:
        discord.starts_left = 0
        with pytest.raises(ChannelRefusedError, match="60 minutes"):
            await one.socket.listen(one.hear)
        assert discord.identified == 0


async def test_the_token_goes_to_nobody_but_discord() -> None:
    web = DiscordWeb(TOKEN, None, {})
    socket = DiscordSocket(web, intents_of(message_content=True), _nothing)
    assert [
        socket._may_trust(url)
        for url in ("wss://gateway-us-east1-b.discord.gg", "wss://discord.gg.example.org", "ws://a.discord.gg", "")
    ] == [True, False, False, False]


async def _nothing(name: str, event: Any, hear: Hear) -> None: ...
