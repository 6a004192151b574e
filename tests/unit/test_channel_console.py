"""What a terminal gets to see of an answer."""

from __future__ import annotations

import io
import os

import pytest

from holdfast.channel.channel import SendRequest
from holdfast.channel.console import ConsoleChannel
from holdfast.errors import ChannelRefusedError, SendUnknownError
from holdfast.outbox.outbox import POSSIBLE_DUPLICATE
from holdfast.text import escape_controls


async def test_an_answer_is_a_line_with_its_target_before_it() -> None:
    out = io.StringIO()
    await ConsoleChannel(out).send(SendRequest("d_1", "me", "hello"))
    assert out.getvalue() == "me> hello\n"


async def test_a_copy_carries_its_label() -> None:
    out = io.StringIO()
    await ConsoleChannel(out).send(SendRequest("d_1", "", "hello", POSSIBLE_DUPLICATE))
    assert out.getvalue() == "(may be a duplicate) hello\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("over\rwritten", "over\\x0dwritten"),
        ("windows\r\nline", "windows\nline"),
        ("\x9b31m", "\\x9b31m"),
        ("gpj\u202eexe.", "gpj\\u202eexe."),
        ("half \ud83d a pair", "half \\ud83d a pair"),
        ("Grüße, 世界 🙂", "Grüße, 世界 🙂"),
    ],
)
def test_control_sequences_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


async def test_letters_that_the_terminal_does_not_have_are_spelled_out() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    await ConsoleChannel(stream).send(SendRequest("d_1", "", "Grüße"))
    assert raw.getvalue() == b"Gr\\xfc\\xdfe\n"


async def test_an_output_that_nobody_reads_is_a_permanent_refusal() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    with pytest.raises(ChannelRefusedError) as refused:
        await ConsoleChannel(stream).send(SendRequest("d_1", "", "hello"))
    assert refused.value.permanent
    with pytest.raises(BrokenPipeError):
        stream.close()


async def test_a_closed_output_is_a_permanent_refusal() -> None:
    out = io.StringIO()
    out.close()
    with pytest.raises(ChannelRefusedError, match="closed"):
        await ConsoleChannel(out).send(SendRequest("d_1", "", "hello"))


async def test_a_terminal_cannot_be_asked_and_says_so() -> None:
    channel = ConsoleChannel(io.StringIO())
    assert not channel.traits.reconciles
    with pytest.raises(SendUnknownError):
        await channel.find("d_1", "")
