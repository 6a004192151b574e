"""Text to Telegram, and what its updates say."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.channel.listening import Attachment
from holdfast.channel.telegram_events import Me, heard_of, to_html

ME = Me("1001", "HoldfastBot")


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("plain < & >", "plain &lt; &amp; &gt;"),
        ("**bold** and *italic* and ~~gone~~", "<b>bold</b> and <i>italic</i> and <s>gone</s>"),
        ("# A **title**\ntext", "<b>A title</b>\ntext"),
        ("- one\n* two", "• one\n• two"),
        ("[a label](https://example.org/?a=1&b=2)", '<a href="https://example.org/?a=1&amp;b=2">a label</a>'),
        ("[x](javascript:alert)", "[x](javascript:alert)"),
        ("`**code** <b>`", "<code>**code** &lt;b&gt;</code>"),
        ("```python\nx = a * b\n```\nafter", '<pre><code class="language-python">x = a * b</code></pre>\nafter'),
        ("~~~\na & b\n~~~", "<pre><code>a &amp; b</code></pre>"),
        ("2 * 3 * 4 snake_case_name", "2 * 3 * 4 snake_case_name"),
    ],
)
def test_markdown_as_telegram_shows_it(markdown: str, shown: str) -> None:
    assert to_html(markdown) == shown


def attachment(file: Any, media_type: str) -> Attachment:
    async def fetch(bytes_max: int) -> bytes:
        return b""

    return Attachment(str(file.get("file_name", "")), media_type, None, fetch)


def update(**facts: Any) -> dict[str, Any]:
    message = {
        "message_id": 7, "date": 1_700_000_000, "chat": {"id": -5, "type": "supergroup"},
        "from": {"id": 2001, "first_name": "Ann", "last_name": "Lee"}, "text": "hello", **facts,
    }  # fmt: skip
    return {"update_id": 1, "message": message}


def test_where_it_was_said_and_by_whom() -> None:
    one = heard_of(update(), ME, attachment)
    assert one is not None
    assert (one.id, one.kind, one.peer, one.target, one.sender, one.sender_name) == (
        "-5:7", "group", "-5", "-5", "2001", "Ann Lee",
    )  # fmt: skip
    assert (one.mentioned, one.is_bot, one.at_ms) == (False, False, 1_700_000_000_000)
    one = heard_of(update(chat={"id": 2001, "type": "private"}), ME, attachment)
    assert one is not None
    assert (one.kind, one.peer, one.target) == ("direct", "2001", "2001")


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"text": "@holdfastbot: hello"}, "hello"),
        ({"text": "/status@HoldfastBot"}, "/status"),
        ({"text": "ask @HoldfastBot"}, "ask @HoldfastBot"),
        ({"entities": [{"type": "text_mention", "user": {"id": 1001}}]}, "hello"),
        ({"reply_to_message": {"from": {"id": 1001}}}, "hello"),
    ],
)
def test_it_is_spoken_to_when_it_is_named_or_answered(facts: dict[str, Any], text: str) -> None:
    one = heard_of(update(**facts), ME, attachment)
    assert one is not None
    assert (one.mentioned, one.text) == (True, text)


def test_names_that_begin_with_ours_are_others() -> None:
    one = heard_of(update(text="@HoldfastBotty hello"), ME, attachment)
    assert one is not None
    assert not one.mentioned


@pytest.mark.parametrize(
    "odd", [{"from": {"id": 1001}}, {"text": None}, {"chat": {}}, {"message_id": "7"}, {"from": None}, {"chat": "x"}]
)
def test_what_nobody_said_is_not_heard(odd: dict[str, Any]) -> None:
    assert heard_of(update(**odd), ME, attachment) is None
    assert heard_of({"update_id": 1, "edited_message": {}}, ME, attachment) is None


def test_the_largest_picture_and_each_file_come_with_it() -> None:
    photo = [{"file_name": "small"}, {"file_name": "large"}]
    one = heard_of(update(photo=photo, document={"file_name": "a.pdf"}), ME, attachment)
    assert one is not None
    assert [(file.name, file.media_type) for file in one.attachments] == [("a.pdf", ""), ("large", "image/jpeg")]
