"""From a webhook of GitHub to what was heard. Pure.

A conversation is an issue or a pull request: its repository and its number. A comment is named by its own id, not by
that of the delivery that tells of it: deliveries are told again by hand, under new ids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast.channel.github_text import marker_of, mentions, without_address
from holdfast.channel.listening import Heard
from holdfast.text import on_one_line

TITLE_CHARS_MAX = 200
_TARGET = re.compile(r"(?P<repo>[A-Za-z0-9-]{1,39}/[A-Za-z0-9._-]{1,100})#(?P<number>[1-9][0-9]{0,9})")
_NAME = re.compile(r"(?P<kind>issue|issuecomment|discussion_r|pullrequestreview)-(?P<id>[1-9][0-9]{0,18})")
_SAID = {
    "issues": ("opened", "issue", "issue"),
    "pull_request": ("opened", "pull_request", "issue"),
    "issue_comment": ("created", "comment", "issuecomment"),
    "pull_request_review_comment": ("created", "comment", "discussion_r"),
    "pull_request_review": ("submitted", "review", "pullrequestreview"),
}
"""By event: the action that says something, where that stands, and what its id is called. All else is no message."""


@dataclass(frozen=True, slots=True)
class Me:
    """Who we are."""

    login: str
    id: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A target: an issue or a pull request, shown as `owner/repo#12`."""

    repo: str
    number: int

    def __str__(self) -> str:
        return f"{self.repo}#{self.number}"


@dataclass(frozen=True, slots=True)
class Name:
    """One message there: `owner/repo#12:issuecomment-345`."""

    place: Place
    kind: str
    id: int

    def __str__(self) -> str:
        return f"{self.place}:{self.kind}-{self.id}"


def place_of(target: str) -> Place | None:
    """A target, read; None: it is none."""
    found = _TARGET.fullmatch(target)
    return None if found is None else Place(found["repo"], int(found["number"]))


def name_of(text: str) -> Name | None:
    """The name of a message, read; None: it is none."""
    target, _, rest = text.partition(":")
    place, found = place_of(target), _NAME.fullmatch(rest)
    return None if place is None or found is None else Name(place, found["kind"], int(found["id"]))


def is_said(event: str, payload: Mapping[str, Any]) -> bool:
    """Whether a delivery tells of something that was said."""
    return event in _SAID and payload.get("action") == _SAID[event][0]


def heard_of(event: str, payload: Mapping[str, Any], me: Me) -> Heard | None:
    """What was said; None: nothing, or we have said it ourselves."""
    if not is_said(event, payload):
        return None
    _, where, kind = _SAID[event]
    said, user = _table(payload, where), _table(_table(payload, where), "user")
    issue = _table(payload, "issue") or _table(payload, "pull_request")
    repo, number, ident = _text(_table(payload, "repository"), "full_name").lower(), issue.get("number"), said.get("id")
    place = place_of(f"{repo}#{number}")
    if place is None or not isinstance(ident, int) or not _is_id(ident) or not _is_id(user.get("id")):
        return None
    body, login = _text(said, "body"), _text(user, "login")
    if marker_of(body) is not None or user["id"] == me.id or login.lower() == me.login.lower():
        return None
    text = without_address(body, me.login)
    return Heard(
        id=str(Name(place, kind, ident)),
        kind="channel",
        peer=place.repo,
        thread=str(place.number),
        guild=place.repo.partition("/")[0],
        sender=str(user["id"]),
        sender_name=login,
        roles=_roles(said),
        text=_in_its_place(event, place, issue, said, text),
        target=str(place),
        mentioned=mentions(body, me.login),
        is_bot=_text(user, "type") == "Bot" or login.endswith("[bot]"),
        at_ms=_at_ms(_text(said, "created_at") or _text(said, "submitted_at")),
    )


def _in_its_place(event: str, place: Place, issue: Mapping[str, Any], said: Mapping[str, Any], text: str) -> str:
    """With a line that says where it was said; what was opened with its title. A command is left as it is."""
    title = on_one_line(_text(issue, "title"))[:TITLE_CHARS_MAX]
    if event in ("issues", "pull_request"):
        return f"{place} was opened: {title}\n\n{text}".strip()
    if not text or text.startswith("/"):
        return text
    path, line = on_one_line(_text(said, "path")), said.get("line")
    file = f", {path}" + (f" line {line}" if isinstance(line, int) else "") if path else ""
    return f"(on {place}, {title}{file})\n{text}"


def _roles(said: Mapping[str, Any]) -> tuple[str, ...]:
    """What GitHub says that its sender is to the repository, as the gate is asked: `@owner`, `@member`, …"""
    association = _text(said, "author_association").lower()
    return (f"@{association}",) if association else ()


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**19


def _at_ms(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        return 0
