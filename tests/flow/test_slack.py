"""Slack from end to end: a gateway, slack-sdk and a stand-in of Slack over sockets, with everything that goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import Config
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import Served, served
from holdfast.testing.world import echo
from tests.flow.test_streaming import ANSWER, BEGIN, Halting
from tests.platforms.slack import ENV, SlackStandIn, quick_adapter, slack_stand_in

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32


def config_of(slack: SlackStandIn, mode: str, **own: Any) -> Config:
    table = {"dm": "open", "groups": "open", "slack": slack.table(mode=mode), **own}
    return Config.model_validate({"channels": {"slack": table}})


@asynccontextmanager
async def talking(
    tmp_path: Path,
    mode: str = "socket",
    *,
    model: ScriptedModel | None = None,
    quick: bool = False,
    reconciles: bool = True,
    **own: Any,
) -> AsyncIterator[tuple[SlackStandIn, Served]]:
    """A gateway that listens to the stand-in. quick: a send without an answer is looked for after a second."""
    async with (
        slack_stand_in() as slack,
        served(
            tmp_path,
            model=model or ScriptedModel(otherwise=echo),
            config=config_of(slack, mode, **own),
            env=ENV,
            adapters={"slack": quick_adapter(slack, reconciles=reconciles)} if quick else {},
        ) as gateway,
    ):
        if mode == "socket":
            await slack.until(lambda: bool(slack.sockets), "a socket")
        yield slack, gateway


async def delivered(gateway: Served, count: int = 1) -> list[str]:
    """States of the deliveries, once there are so many and none is under way."""
    async with asyncio.timeout(60):
        while True:
            rows = await gateway.hf.deliveries()
            if len(rows) >= count and all(row.state in ("sent", "failed") for row in rows):
                return [row.state for row in rows]
            await asyncio.sleep(0.02)


async def test_a_direct_message_is_answered_over_a_socket(tmp_path: Path) -> None:
    async with talking(tmp_path, reaction="eyes") as (slack, gateway):
        said = await slack.says("hello")
        await slack.shows("re: hello")
        assert await delivered(gateway) == ["sent"]
        assert slack.signs == [("D1", said["ts"], "eyes")]
        [view] = await gateway.hf.inputs(limit=10)
        assert (view.session, view.source) == ("agent:main:slack:direct:U1", "channel:slack")
        assert slack.acknowledged == [f"Ev{said['ts']}"]


async def test_a_mention_in_a_channel_is_answered_in_its_thread_which_goes_on_without_mentions(tmp_path: Path) -> None:
    async with talking(tmp_path) as (slack, gateway):
        await slack.says("nothing for you", channel="C1", kind="channel")
        root = await slack.says("<@UBOT> hello", channel="C1", kind="channel")
        await slack.shows("re: [Name of U1] hello", channel="C1", thread=root["ts"])
        await slack.says("and?", channel="C1", kind="channel", thread=root["ts"], user="U2")
        await slack.shows("re: [Name of U2] and?", channel="C1", thread=root["ts"])
        sessions = {view.session for view in await gateway.hf.inputs(limit=10)}
        assert sessions == {f"agent:main:slack:channel:C1:thread:{root['ts']}"}


async def test_what_slack_tells_twice_is_one_message(tmp_path: Path) -> None:
    async with talking(tmp_path) as (slack, gateway):
        said = slack.event("<@UBOT> hello", channel="C1", kind="channel")
        await slack.tell(said, times=2)
        mention = {**said, "event": {**said["event"], "type": "app_mention"}, "event_id": "EvMention"}
        await slack.tell(mention)
        await slack.until(lambda: len(slack.acknowledged) == 3)
        assert await delivered(gateway) == ["sent"]
        assert len(await gateway.hf.inputs(limit=10)) == 1


async def test_a_socket_that_drops_is_opened_again_and_what_was_said_meanwhile_is_heard(tmp_path: Path) -> None:
    async with talking(tmp_path) as (slack, gateway):
        await slack.says("one")
        slack.cut()
        await slack.until(lambda: not slack.sockets, "the socket is gone")
        await slack.says("two")
        await slack.shows("re: two")
        assert await delivered(gateway, 2) == ["sent", "sent"]


async def test_a_change_over_to_a_new_socket_loses_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path) as (slack, _):
        first = slack.sockets[0]
        await slack.change_over()
        await slack.until(lambda: bool(slack.sockets) and slack.sockets[-1] is not first, "another socket")
        await slack.says("hello")
        await slack.shows("re: hello")
        assert slack.calls.count("apps.connections.open") == 2


async def test_a_token_that_was_revoked_is_told_and_not_hammered(tmp_path: Path) -> None:
    async with slack_stand_in() as slack:
        slack.token_error = "token_revoked"
        async with served(tmp_path, config=config_of(slack, "socket"), env=ENV) as gateway:
            async with asyncio.timeout(30):
                while True:
                    seen = {one.state: one.detail or "" for one in await gateway.hf.store.listeners()}
                    if "refused" in seen:
                        break
                    await asyncio.sleep(0.02)
            assert "token_revoked" in seen["refused"]
            assert slack.calls == ["apps.connections.open"]


async def test_wrong_signatures_keep_nobody_from_being_heard_who_signs(tmp_path: Path) -> None:
    """Behind a proxy they have one address."""
    async with talking(tmp_path, "http") as (slack, gateway):
        url, said = f"{gateway.url}/channels/slack", slack.event("hello")
        told = [(await slack.posts(url, said, secret="wrong")).status_code for _ in range(22)]
        assert told == [401] * 20 + [429] * 2
        assert (await slack.posts(url, said)).status_code == 200
        await slack.shows("re: hello")


async def test_messages_over_http_are_signed_and_stored_before_slack_is_told(tmp_path: Path) -> None:
    async with talking(tmp_path, "http") as (slack, gateway):
        url = f"{gateway.url}/channels/slack"
        challenge = await slack.posts(url, {"type": "url_verification", "challenge": "c4r"})
        assert (challenge.status_code, challenge.text) == (200, "c4r")
        said = slack.event("hello")
        assert (await slack.posts(url, said, secret="wrong")).status_code == 401
        assert await gateway.hf.inputs(limit=10) == []
        for _ in range(2):
            assert (await slack.posts(url, said)).status_code == 200
        assert len(await gateway.hf.inputs(limit=10)) == 1
        await slack.shows("re: hello")
        assert await delivered(gateway) == ["sent"]


async def test_slack_is_asked_to_tell_again_while_we_cannot_ask_who_we_are(tmp_path: Path) -> None:
    async with talking(tmp_path, "http") as (slack, gateway):
        url = f"{gateway.url}/channels/slack"
        slack.fail("auth.test", 500, done=False)
        said = slack.event("hello")
        assert (await slack.posts(url, said)).status_code == 503
        assert (await slack.posts(url, said)).status_code == 200
        await slack.shows("re: hello")


@pytest.mark.promise("P4")
async def test_an_answer_whose_confirmation_is_lost_is_found_and_shown_once(tmp_path: Path) -> None:
    async with talking(tmp_path, quick=True) as (slack, gateway):
        slack.lose_answer("chat.postMessage")
        await slack.says("hello")
        assert await delivered(gateway) == ["sent"]
        assert slack.shown() == ["re: hello"]
        assert "conversations.history" in slack.calls


@pytest.mark.promise("P4")
async def test_an_answer_that_slack_lost_goes_out_again_without_a_label(tmp_path: Path) -> None:
    async with talking(tmp_path, quick=True) as (slack, gateway):
        slack.fail("chat.postMessage", 503, done=False)
        await slack.says("hello")
        assert await delivered(gateway) == ["sent"]
        assert slack.shown() == ["re: hello"]


@pytest.mark.promise("P4")
async def test_where_slack_cannot_be_asked_a_labelled_copy_goes_out(tmp_path: Path) -> None:
    async with talking(tmp_path, quick=True, reconciles=False) as (slack, gateway):
        slack.lose_answer("chat.postMessage")
        await slack.says("hello")
        assert await delivered(gateway) == ["sent"]
        assert slack.shown() == ["re: hello", "(may be a duplicate) re: hello"]


async def test_a_channel_that_was_archived_ends_the_delivery_with_its_reason(tmp_path: Path) -> None:
    async with talking(tmp_path) as (slack, gateway):
        slack.archived.add("D1")
        await slack.says("hello")
        assert await delivered(gateway) == ["failed"]
        [row] = await gateway.hf.deliveries()
        assert "is_archived" in (row.detail or "")


async def test_a_picture_is_shown_to_the_model_and_the_token_goes_to_slack_alone(tmp_path: Path) -> None:
    model = ScriptedModel("I see", "I do not")
    async with talking(tmp_path, model=model) as (slack, _):
        slack.files["cat.png"] = PNG
        url = slack.url.replace("/api/", "/files/cat.png")
        file = {"name": "cat.png", "mimetype": "image/png", "size": len(PNG), "url_private_download": url}
        await slack.says("look", subtype="file_share", files=[file])
        await slack.shows("I see")
        assert "image" in str(model.requests[0].messages)
        elsewhere = {**file, "url_private_download": "http://127.0.0.1:9/cat.png"}
        await slack.says("and here", subtype="file_share", files=[elsewhere])
        await slack.shows("I do not")
        assert "cat.png" in str(model.requests[1].messages[-1])


async def test_a_stranger_is_sent_a_code(tmp_path: Path) -> None:
    async with talking(tmp_path, dm="pairing") as (slack, gateway):
        await slack.says("hello", user="U9")
        assert await delivered(gateway) == ["sent"]
        [pairing] = await gateway.hf.store.pairings(channel="slack", limit=10)
        assert pairing.code in slack.shown()[0]
        assert pairing.sender == "U9"


@pytest.mark.promise("P4")
@pytest.mark.parametrize("lost", ["nothing", "the beginning", "an edit on the way", "the last edit"])
async def test_an_answer_is_shown_in_its_thread_while_it_is_written_and_stays_one_message(
    tmp_path: Path, lost: str
) -> None:
    model = Halting(ANSWER)
    async with talking(tmp_path, model=model, quick=True, streaming="partial") as (slack, gateway):
        if lost == "the beginning":
            slack.lose_answer("chat.postMessage")
        root = await slack.says("<@UBOT> hello", channel="C1", kind="channel")
        await slack.shows(f"{BEGIN} …", channel="C1", thread=root["ts"])
        assert slack.statuses == [("C1", root["ts"], "is writing…")]
        if lost == "an edit on the way":
            slack.fail("chat.update", 500, done=False)
        elif lost == "the last edit":
            slack.lose_answer("chat.update")
        model.may_go_on.set()
        await slack.shows(ANSWER, channel="C1", thread=root["ts"])
        assert await delivered(gateway) == ["sent"]
        assert slack.shown("C1", root["ts"]) == [ANSWER]
