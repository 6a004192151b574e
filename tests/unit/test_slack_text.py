"""Text to and from Slack, and what its events say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.channel.listening import Attachment
from holdfast.channel.slack_events import Me, Place, ReplyInThread, Threads, heard_of, message_of, place_of
from holdfast.channel.slack_text import from_mrkdwn, mentions, to_mrkdwn

ME = Me("UBOT", "BBOT", "T1")


@pytest.mark.parametrize(
    ("markdown", "mrkdwn"),
    [
        ("plain", "plain"),
        ("**bold** and *italic* and ~~gone~~", "*bold* and _italic_ and ~gone~"),
        ("# A **title**\ntext", "*A title*\ntext"),
        ("- one\n* two\n  + three", "• one\n• two\n  • three"),
        ("[a label](https://example.org/x_(y))", "<https://example.org/x_(y)|a label>"),
        ("<https://example.org>", "<https://example.org>"),
        ("5 < 6 & 7 > 2", "5 &lt; 6 &amp; 7 &gt; 2"),
        ("<!channel> <@U1>", "&lt;!channel&gt; &lt;@U1&gt;"),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ("`**not bold** <b>`", "`**not bold** &lt;b&gt;`"),
        ("```python\nx = a * b * c  # **\n```\nafter", "```\nx = a * b * c  # **\n```\nafter"),
        ("~~~\na & b\n~~~", "```\na &amp; b\n```"),
        ("```\nnever closed", "```\nnever closed\n```"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("snake_case_name", "snake_case_name"),
        ("__strong__", "*strong*"),
    ],
)
def test_markdown_as_slack_shows_it(markdown: str, mrkdwn: str) -> None:
    assert to_mrkdwn(markdown) == mrkdwn


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<@UBOT> hello", "hello"),
        ("<@UBOT|bot>: hello <@U2> <@U3|ann>", "hello @U2 @ann"),
        ("ask <@UBOT> about it", "ask @UBOT about it"),
        ("in <#C1|general> <!here> <!subteam^S1|@team>", "in #general @here @team"),
        (
            "<https://example.org|example.org> <https://example.org|here>",
            "https://example.org here (https://example.org)",
        ),
        ("<mailto:a@example.org|a@example.org>", "a@example.org"),
        ("a &lt; b &amp;amp; c", "a < b &amp; c"),
    ],
)
def test_what_somebody_wrote_as_plain_text(written: str, read: str) -> None:
    assert from_mrkdwn(written, "UBOT") == read
    assert mentions(written, "UBOT") == ("<@UBOT" in written)


def payload(**event: Any) -> dict[str, Any]:
    usual = {
        "type": "message",
        "channel": "C1",
        "channel_type": "channel",
        "user": "U1",
        "text": "hi",
        "ts": "5.000100",
    }
    return {"type": "event_callback", "team_id": "T1", "event": {**usual, **event}}


def no_file(file: Mapping[str, Any]) -> Attachment:
    raise AssertionError(file)


@pytest.mark.parametrize(
    "told",
    [
        {}, {"type": "event_callback"}, {"type": "event_callback", "event": "x"}, payload(type="reaction_added"),
        payload(subtype="message_changed"), payload(subtype="channel_join"), payload(user="UBOT"),
        payload(user=None, bot_id="BBOT"), payload(ts=None), payload(channel=7), payload(user=None),
    ],
)  # fmt: skip
def test_what_nobody_else_said_is_nothing(told: dict[str, Any]) -> None:
    assert message_of(told, ME) is None


@pytest.mark.parametrize(
    ("event", "in_channels", "in_direct", "where"),
    [
        ({}, "always", False, ("channel", "C1", "5.000100", "C1/5.000100")),
        ({"thread_ts": "4.0"}, "always", False, ("channel", "C1", "4.0", "C1/4.0")),
        ({"thread_ts": "5.000100"}, "always", False, ("channel", "C1", "5.000100", "C1/5.000100")),
        ({}, "in_threads", False, ("channel", "C1", None, "C1")),
        ({"thread_ts": "4.0"}, "in_threads", False, ("channel", "C1", "4.0", "C1/4.0")),
        ({"thread_ts": "4.0"}, "never", False, ("channel", "C1", None, "C1")),
        ({"channel_type": "group"}, "in_threads", False, ("channel", "C1", None, "C1")),
        ({"channel_type": "mpim"}, "always", False, ("group", "C1", None, "C1")),
        ({"channel_type": "im", "channel": "D1"}, "always", False, ("direct", "U1", None, "D1")),
        (
            {"channel_type": "im", "channel": "D1", "thread_ts": "4.0"},
            "always",
            False,
            ("direct", "U1", None, "D1/4.0"),
        ),
        (
            {"channel_type": "im", "channel": "D1", "thread_ts": "4.0"},
            "always",
            True,
            ("direct", "U1", "4.0", "D1/4.0"),
        ),
    ],
)
def test_where_it_was_said_and_where_the_answer_goes(
    event: dict[str, Any], in_channels: ReplyInThread, in_direct: bool, where: tuple[str, str, str | None, str]
) -> None:
    message = message_of(payload(**event), ME)
    assert message is not None
    heard = heard_of(message, ME, Threads(in_channels, in_direct), attachment=no_file)
    assert (heard.kind, heard.peer, heard.thread, heard.target) == where
    assert (heard.id, heard.sender, heard.team, heard.at_ms) == (f"{message.channel}:5.000100", "U1", "T1", 5000)
    assert str(place_of(heard.target)) == heard.target


@pytest.mark.parametrize(
    ("event", "mentioned", "is_bot"),
    [
        ({}, False, False), ({"text": "<@UBOT> hi"}, True, False), ({"type": "app_mention"}, True, False),
        ({"thread_ts": "4.0", "parent_user_id": "UBOT"}, True, False), ({"user": None, "bot_id": "B9"}, False, True),
    ],
)  # fmt: skip
def test_who_spoke_and_to_whom(event: dict[str, Any], mentioned: bool, is_bot: bool) -> None:
    message = message_of(payload(**event), ME)
    assert message is not None
    heard = heard_of(message, ME, Threads(), attachment=no_file)
    assert (heard.mentioned, heard.is_bot) == (mentioned, is_bot)


def test_a_target_names_a_conversation_or_a_thread_of_it() -> None:
    assert place_of("C1") == Place("C1")
    assert place_of("C1/4.0") == Place("C1", "4.0")
