"""Telegram from end to end: a gateway and a stand-in of the Bot API over sockets, with what goes wrong there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.channel.listening import Heard, Receipt
from holdfast.config import Config
from holdfast.errors import ResourceError
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import Served, served
from holdfast.testing.world import echo
from tests.flow.test_discord import delivered, seen
from tests.flow.test_streaming import ANSWER, BEGIN, Halting
from tests.platforms.telegram import ENV, TelegramStandIn, quick_adapter, telegram_stand_in

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32
GROUP = -100123


@asynccontextmanager
async def talking(
    tmp_path: Path, *, model: ScriptedModel | None = None, **own: Any
) -> AsyncIterator[tuple[TelegramStandIn, Served]]:
    async with telegram_stand_in() as telegram:
        table = {"dm": "open", "groups": "open", **own}
        async with served(
            tmp_path,
            model=model or ScriptedModel(otherwise=echo),
            config=Config.model_validate({"channels": {"telegram": table}}),
            env=ENV,
            adapters={"telegram": quick_adapter(telegram)},
        ) as gateway:
            yield telegram, gateway


async def test_who_writes_directly_is_answered_and_told_twice_is_once(tmp_path: Path) -> None:
    async with talking(tmp_path, reaction="eyes") as (telegram, gateway):
        said = telegram.says("hello", times=2)
        await telegram.shows("re: hello")
        assert await delivered(gateway) == ["sent"]
        assert telegram.signs == [("2001", said, "👀")]
        [view] = await gateway.hf.inputs(limit=10)
        assert view.session == "agent:main:telegram:direct:2001"
        await telegram.until(lambda: telegram.acknowledged == 502, "both are acknowledged")


async def test_in_a_group_who_names_it_is_answered_in_their_topic(tmp_path: Path) -> None:
    async with talking(tmp_path) as (telegram, gateway):
        telegram.says("nothing for you", chat=GROUP)
        telegram.says("@holdfastbot hello", chat=GROUP, message_thread_id=7, is_topic_message=True)
        await telegram.shows("re: [Name of 2001] hello", chat=str(GROUP), topic=7)
        telegram.says("and?", chat=GROUP, reply_to_message={"from": {"id": 1001}})
        await telegram.shows("re: [Name of 2001] and?", chat=str(GROUP))
        place = f"agent:main:telegram:group:{GROUP}"
        assert {view.session for view in await gateway.hf.inputs(limit=10)} == {place, f"{place}:thread:7"}


async def test_a_picture_is_shown_to_the_model(tmp_path: Path) -> None:
    model = ScriptedModel("I see")
    async with talking(tmp_path, model=model) as (telegram, _):
        telegram.files["f1"] = PNG
        photo = [{"file_id": "f0", "file_size": 1}, {"file_id": "f1", "file_size": len(PNG)}]
        telegram.says("", caption="look", photo=photo)
        await telegram.shows("I see")
        assert "image" in str(model.requests[0].messages)


@pytest.mark.promise("P4")
async def test_an_answer_whose_confirmation_is_lost_is_followed_by_a_labelled_copy(tmp_path: Path) -> None:
    async with talking(tmp_path) as (telegram, gateway):
        telegram.lose_answer("sendMessage")
        telegram.says("hello")
        assert await delivered(gateway) == ["sent"]
        assert telegram.shown() == ["re: hello", "(may be a duplicate) re: hello"]


@pytest.mark.promise("P4")
async def test_an_answer_is_shown_while_it_is_written_and_a_lost_edit_is_done_again(tmp_path: Path) -> None:
    model = Halting(ANSWER)
    async with talking(tmp_path, model=model, streaming="partial") as (telegram, gateway):
        telegram.says("hello")
        await telegram.shows(f"{BEGIN} …")
        assert telegram.typing
        telegram.lose_answer("editMessageText")
        model.may_go_on.set()
        assert await delivered(gateway) == ["sent"]
        assert telegram.shown() == [ANSWER]


async def test_a_webhook_that_is_set_is_told_to_people(tmp_path: Path) -> None:
    async with telegram_stand_in() as telegram:
        telegram.refuse("getUpdates", 409, "Conflict: can't use getUpdates method while webhook is active")
        config = Config.model_validate({"channels": {"telegram": {"telegram": telegram.table()}}})
        async with served(tmp_path, config=config, env=ENV) as gateway:
            assert "webhook is active" in await seen(gateway, "refused")


async def test_what_could_not_be_stored_is_told_again() -> None:
    async with telegram_stand_in() as telegram:
        adapter = quick_adapter(telegram)
        heard: list[str] = []
        refuse = [ResourceError("disk full")]
        came = asyncio.Event()

        async def hear(one: Heard) -> Receipt:
            if one.text == "two" and refuse:
                raise refuse.pop()
            heard.append(one.text)
            if one.text == "three":
                came.set()
            return Receipt("taken", "i_1")

        assert adapter.listener is not None
        assert adapter.close is not None
        for text in ("one", "two", "three"):
            telegram.says(text)
        with pytest.raises(ResourceError):
            await adapter.listener.listen(hear)
        listening = asyncio.create_task(adapter.listener.listen(hear))
        await asyncio.wait_for(came.wait(), 30)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        assert heard == ["one", "one", "two", "three"]
        await adapter.close()


async def test_an_answer_of_emoji_goes_out_in_pieces_that_telegram_takes(tmp_path: Path) -> None:
    answer = "🎉" * 5000 + " and 🎈 done"
    async with talking(tmp_path, model=ScriptedModel(answer)) as (telegram, gateway):
        telegram.says("hello")
        await telegram.until(lambda: bool(telegram.shown()) and "done" in telegram.shown()[-1], "the last piece")
        assert "".join(telegram.shown()).replace(" ", "") == answer.replace(" ", "")
        assert set(await delivered(gateway)) == {"sent"}


@pytest.mark.parametrize("odd", [None, "update", 7, [], {}, {"update_id": "x"}, {"message": {"chat": 7}}])
async def test_an_update_that_is_none_does_not_keep_the_others_away(tmp_path: Path, odd: Any) -> None:
    async with talking(tmp_path) as (telegram, _):
        telegram.tells(odd)
        telegram.says("hello")
        await telegram.shows("re: hello")
