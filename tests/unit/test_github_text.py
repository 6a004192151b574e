"""Markers, names and calls in comments of GitHub; what its own examples of webhooks say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.channel.github_events import Me, Name, Place, heard_of, name_of, place_of
from holdfast.channel.github_text import Marker, marked, marker_of, mentions, without_address, without_calls

EXAMPLES = json.loads((Path(__file__).parents[1] / "flow" / "github_examples.json").read_text())["payloads"]
ME = Me("holdfast-bot", 99)


@settings(max_examples=30)
@given(st.text(), st.booleans(), st.booleans(), st.booleans())
def test_a_marker_is_read_back_whatever_the_text(text: str, preview: bool, standing: bool, calls: bool) -> None:
    marker = Marker("d_0123abcd.65000", preview, standing)
    assert marker_of(marked(text, marker, mentions=calls)) == marker


@pytest.mark.parametrize("body", ["", "hello", "<!-- holdfast:d_1 --> and more", "<!-- holdfast: -->", "<!-- hold -->"])
def test_what_is_no_marker_at_the_end_is_none(body: str) -> None:
    assert marker_of(body) is None


@pytest.mark.parametrize(
    ("text", "is_called"),
    [
        ("@holdfast-bot hi", True), ("hi, @Holdfast-Bot!", True), ("hi\n@holdfast-bot", True),
        ("@holdfast-bots hi", False), ("me@holdfast-bot", False), ("@holdfast-bot/team", False),
        ("`@holdfast-bot`", False), ("```\n@holdfast-bot\n```\n", False), ("> @holdfast-bot", False),
        ("```\ncode\n```\n@holdfast-bot hi", True), ("", False),
    ],
)  # fmt: skip
def test_who_is_spoken_to(text: str, is_called: bool) -> None:
    assert mentions(text, ME.login) is is_called
    assert mentions(text, "") is False


def test_a_name_that_only_addresses_is_taken_out() -> None:
    assert without_address(" @Holdfast-Bot: do it", ME.login) == "do it"
    assert without_address("ask @holdfast-bot", ME.login) == "ask @holdfast-bot"
    assert without_address("@holdfast-bots do it", ME.login) == "@holdfast-bots do it"


def test_names_in_answers_call_nobody_but_code_stays_as_it_is() -> None:
    text = "ask @octocat and @org/team\n\n```\n@app.route\n```\nor `@property`, me@example.org"
    quiet = without_calls(text)
    assert quiet.replace("\u200b", "") == text
    assert "@octocat" not in quiet
    assert "@org" not in quiet
    assert "@app.route" in quiet
    assert "`@property`" in quiet
    assert "me@example.org" in quiet


def test_names_and_targets_are_read_back() -> None:
    place = Place("octo-org/octo-repo", 12)
    assert place_of(str(place)) == place
    assert name_of(str(Name(place, "discussion_r", 5))) == Name(place, "discussion_r", 5)
    for text in ("", "a/b#1", "a/b#1:issue-", "a/b#1:comment-5", "a/b#1:issue-5/../6"):
        assert name_of(text) is None


def test_githubs_own_example_of_a_comment_is_heard() -> None:
    heard = heard_of("issue_comment", EXAMPLES["issue_comment"] | {"action": "created"}, ME)
    said = EXAMPLES["issue_comment"]
    assert heard is not None
    assert heard.id == f"{heard.target}:issuecomment-{said['comment']['id']}"
    assert heard.target == f"{said['repository']['full_name'].lower()}#{said['issue']['number']}"
    assert (heard.sender, heard.sender_name) == (str(said["comment"]["user"]["id"]), said["comment"]["user"]["login"])
    assert heard.roles == (f"@{said['comment']['author_association'].lower()}",)
    assert heard.text.endswith(said["comment"]["body"].strip())


@pytest.mark.parametrize("event", sorted(EXAMPLES))
def test_no_example_of_github_is_too_odd(event: str) -> None:
    for action in ("opened", "created", "submitted"):
        heard_of(event, EXAMPLES[event] | {"action": action}, ME)
    for broken in ({}, {"issue": 1, "comment": None}, {"comment": {"id": "x"}, "repository": []}):
        assert heard_of(event, {"action": "created", **broken}, ME) is None
