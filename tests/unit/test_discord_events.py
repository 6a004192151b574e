"""What events of Discord say, and whose conversation that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.channel.discord_events import (
    Channel,
    Place,
    ReplyInThread,
    channel_of,
    heard_of,
    message_of,
    place_of,
    sent_at_ms,
)
from holdfast.channel.listening import Attachment, Heard
from holdfast.channel.signs import sign_of

ME = "1001"
ANN = {"id": "2001", "username": "ann", "global_name": "Ann"}
TEXT, THREAD = Channel("4001", may_begin=True), Channel("6001", parent="4001")


async def _nothing(bytes_max: int) -> bytes:
    return b""


def attachment(file: Mapping[str, Any]) -> Attachment:
    return Attachment(str(file["filename"]), "", None, _nothing)


def event(**facts: Any) -> dict[str, Any]:
    usual = {"id": "175928847299117063", "channel_id": "4001", "guild_id": "3001", "author": ANN, "content": "hello"}
    return {**usual, **facts}


def heard(channel: Channel | None = TEXT, reply_in_thread: ReplyInThread = "in_threads", **facts: Any) -> Heard:
    message = message_of(event(**facts), ME)
    assert message is not None
    return heard_of(message, ME, channel, reply_in_thread=reply_in_thread, attachment=attachment)


def test_a_direct_message_is_its_senders_conversation() -> None:
    one = heard(None, guild_id=None, channel_id="5001")
    assert (one.kind, one.peer, one.thread, one.target, one.guild) == ("direct", "2001", None, "5001", None)
    assert (one.id, one.sender_name, one.at_ms) == ("5001:175928847299117063", "Ann", 1_462_015_105_796)


def test_a_channel_is_a_conversation_and_so_is_each_of_its_threads() -> None:
    one = heard()
    assert (one.kind, one.peer, one.thread, one.target, one.guild) == ("channel", "4001", None, "4001", "3001")
    one = heard(THREAD, channel_id="6001")
    assert (one.peer, one.thread, one.target) == ("4001", "6001", "6001")


def test_a_question_may_begin_a_thread_where_threads_can_be_begun() -> None:
    one = heard(reply_in_thread="always")
    assert (one.peer, one.thread, one.target) == ("4001", "175928847299117063", "4001/175928847299117063")
    for elsewhere in (THREAD, Channel("4001")):
        one = heard(elsewhere, reply_in_thread="always")
        assert one.thread == (elsewhere.id if elsewhere.parent else None)


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ({"id": "1", "type": 0, "parent_id": "9"}, Channel("1", may_begin=True)),
        ({"id": "1", "type": 5}, Channel("1", may_begin=True)),
        ({"id": "1", "type": 2}, Channel("1")),
        ({"id": "1", "type": 11, "parent_id": "9"}, Channel("1", parent="9")),
    ],
)
def test_a_category_is_no_parent(told: dict[str, Any], known: Channel) -> None:
    assert channel_of(told) == known


def test_it_is_spoken_to_when_it_is_named_or_answered() -> None:
    assert not heard().mentioned
    assert heard(content="<@1001> hello", mentions=[{"id": ME}]).mentioned
    assert heard(type=19, referenced_message={"author": {"id": ME}}).mentioned
    assert not heard(type=19, referenced_message={"author": {"id": "2002"}}).mentioned
    assert not heard(type=19, referenced_message=None).mentioned
    assert not heard(content="@everyone", mention_everyone=True).mentioned


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<@1001> hello", "hello"),
        ("<@!1001>: hello <@2001> <@2002>", "hello @Ann @2002"),
        ("ask <@1001> about it", "ask @Bot about it"),
        ("in <#4001> for <@&3001> <:smile:77> <a:wave:78>", "in #4001 for @3001 :smile: :wave:"),
        ("a < b <t:1700000000:R>", "a < b <t:1700000000:R>"),
    ],
)
def test_what_somebody_wrote_as_plain_text(written: str, read: str) -> None:
    assert heard(content=written, mentions=[ANN, {"id": ME, "username": "Bot"}]).text == read


def test_programs_are_told_apart_and_we_do_not_hear_ourselves() -> None:
    assert not heard().is_bot
    assert heard(author={**ANN, "bot": True}).is_bot
    assert heard(webhook_id="8001").is_bot
    assert message_of(event(author={"id": ME, "bot": True}), ME) is None


@pytest.mark.parametrize(
    "odd",
    [
        {"type": 7}, {"type": 18}, {"author": None}, {"author": {}}, {"id": 5}, {"channel_id": ""},
    ],
)  # fmt: skip
def test_what_nobody_said_is_no_message(odd: dict[str, Any]) -> None:
    assert message_of(event(**odd), ME) is None


def test_fields_that_are_not_what_they_should_be_are_left_out() -> None:
    one = heard(content=None, attachments="none", mentions={"id": ME}, member=[], referenced_message="x", id="x")
    assert (one.text, one.attachments, one.mentioned, one.at_ms) == ("", (), False, 0)


def test_names_in_a_server_are_those_of_the_server() -> None:
    assert heard(member={"nick": "Annie"}).sender_name == "Annie"
    assert heard(author={"id": "2001", "username": "ann"}).sender_name == "ann"


@pytest.mark.parametrize("target", ["4001", "@2001", "4001/17"])
def test_a_target_is_read_as_it_is_shown(target: str) -> None:
    assert str(place_of(target)) == target


def test_what_targets_name() -> None:
    assert (place_of("4001"), place_of("@2001"), place_of("4001/17")) == (
        Place("4001"), Place("", person="2001"), Place("4001", under="17"),
    )  # fmt: skip


def test_signs_have_names_or_are_taken_as_they_are() -> None:
    assert [sign_of(name) for name in ("eyes", ":eyes:", "👀", "party:123")] == ["👀", "👀", "👀", "party:123"]
    assert sent_at_ms("nonsense") == sent_at_ms("²") == 0
