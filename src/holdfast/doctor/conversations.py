"""Checks of conversations: the list of sessions and the files on disk say the same, each file can be read, archives are
whole. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.doctor.facts import StateFacts
from holdfast.doctor.finding import Finding


def find_unlisted(facts: StateFacts) -> Iterator[Finding]:
    """A transcript that no session leads to is somebody's conversation all the same: it is never moved or removed."""
    if facts.problem:
        return
    leads_to = {one.key: one.path for one in facts.ledger.sessions}
    for one in facts.transcripts:
        if one.listed or one.unread:
            continue
        if one.key is not None and one.key in leads_to:
            yield Finding(
                "index", one.path,
                f"{one.path} ({one.bytes} bytes) is what was said in {one.key} before that shared {leads_to[one.key]}",
                "it is used again once that has one of its own; doctor would move or remove it for nobody",
                level="remark", passes=True,
            )  # fmt: skip
        elif one.key is not None:
            yield Finding(
                "index", one.path,
                f"{one.path} ({one.bytes} bytes) is the transcript of {one.key} and is not in the list of sessions",
                "--fix lists it again, and would move no file", mendable=True, about=one.key,
            )  # fmt: skip
        else:
            yield Finding(
                "index", one.path,
                f"{one.path} ({one.bytes} bytes) is in no list of sessions, and its name does not tell its key",
                "it is found again once somebody speaks in its session; doctor would move or remove it for nobody",
                level="remark",
            )  # fmt: skip


def find_missing(facts: StateFacts) -> Iterator[Finding]:
    """A session whose file has gone."""
    there = {one.path for one in facts.transcripts} | {one.path for one in facts.files}
    for one in facts.ledger.sessions:
        if one.has_spoken and one.path not in there:
            yield Finding(
                "index", one.key,
                f"the transcript of {one.key}, {one.path}, is not there",
                "put it back from a backup, or `holdfast sessions archives` and `sessions restore`; "
                "else the next message begins it anew",
                passes=True,
            )  # fmt: skip


def find_bad_lines(facts: StateFacts) -> Iterator[Finding]:
    """Lines that other readers stumble over. The owner of a turn writes the file anew, and keeps the original."""
    for one in facts.transcripts:
        if one.unread:
            yield Finding("transcripts", one.path, f"{one.path} cannot be read: {one.unread}", "see to its file")
        if one.by_hand:
            yield Finding(
                "transcripts", one.path, f"{one.path} was changed by hand: {one.by_hand}",
                "its owner, or the next turn, judges it before anything is written", level="remark", passes=True,
                about="by hand",
            )  # fmt: skip
        if not one.faults:
            continue
        elsewhere = any(each.key == one.key for each in facts.ledger.sessions)
        key = one.listed[0] if one.listed else None if elsewhere else one.key
        way_out = "--fix writes it anew in a turn of its own, and keeps the original beside it"
        yield Finding(
            "transcripts", one.path, f"{one.path}: {', '.join(one.faults)}",
            way_out if key is not None else "it is mended once somebody speaks in its session",
            mendable=key is not None, passes=True, level="fault" if key is not None else "remark", about=key or "",
        )  # fmt: skip


def find_unpaired(facts: StateFacts) -> Iterator[Finding]:
    """Providers refuse a call without a result; contexts are made so that each has one (`context/repair.py`)."""
    for one in facts.transcripts:
        if one.unanswered:
            yield Finding(
                "pairs", one.path,
                f"{one.path}: {one.unanswered} tool call(s) have no result although the conversation went on",
                "models are shown `interrupted` in its place", level="remark", passes=True,
            )  # fmt: skip
        if one.unasked:
            yield Finding(
                "pairs", one.path, f"{one.path}: {one.unasked} tool result(s) without a call",
                "models are not shown them", level="remark", passes=True, about="results",
            )  # fmt: skip


def find_bad_archives(facts: StateFacts) -> Iterator[Finding]:
    """Each archive is there with all its bytes, and nothing is left half done."""
    for one in facts.ledger.archives:
        if one.is_left:
            yield Finding(
                "archives", one.id, f"archive {one.id} of {one.session} was left {one.state} by a process that ended",
                "--fix ends what was begun; so does a gateway within a minute", mendable=True, passes=True,
            )  # fmt: skip
        elif one.state == "kept" and one.found_bytes is None:
            yield Finding(
                "archives", one.id, f"archive {one.id} of {one.session}: archives/{one.name} is not there",
                "put it back from a backup; `holdfast sessions delete SESSION --now` ends it with all its session's",
                passes=True,
            )  # fmt: skip
        elif one.state == "kept" and one.found_bytes != one.bytes:
            yield Finding(
                "archives", one.id,
                f"archive {one.id} of {one.session}: archives/{one.name} has {one.found_bytes} bytes, "
                f"{one.bytes} were put away",
                "compare it with a backup; restoring it checks its lines", passes=True,
            )  # fmt: skip
