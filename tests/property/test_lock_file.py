"""OpenClaw's lock files, whatever they say: the rules alone decide, and time only makes them staler."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from holdfast.session.lock_file import (
    DAMAGED_GRACE_MS,
    MAX_HOLD_MS_MAX,
    TEXT_BYTES_MAX,
    Asker,
    LockText,
    ProcessFacts,
    judge,
    looks_like_openclaw,
    read_lock,
    write_lock,
)

NOW_MS = 1_780_000_000_000
OWN, OTHER = 4321, 1234
OPENCLAW = ("node", "openclaw.mjs", "gateway")


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


ages_ms = st.integers(-10_000, 4_000_000)
pids = st.sampled_from([OWN, OTHER])
ticks = st.integers(0, 5)
odd = st.sampled_from([None, True, 0, -1, 12.5, "", "7", [], {}, 1e400])
texts = st.fixed_dictionaries(
    {},
    optional={
        "pid": pids | odd,
        "createdAt": ages_ms.map(lambda age: iso(NOW_MS - age)) | st.text(max_size=12) | odd,
        "maxHoldMs": st.integers(1, 400_000) | odd,
        "starttime": ticks | odd,
        "more": st.text(max_size=5),
    },
).map(lambda fields: json.dumps(fields).encode())
raws = texts | st.binary(max_size=200) | st.sampled_from([b"", b"null", b"[1]", b"[" * 50_000, b'{"pid": 1'])
facts_of_any = st.builds(
    ProcessFacts,
    st.booleans(),
    st.none() | ticks,
    st.sampled_from([None, (), OPENCLAW, ("openclaw",), ("sleep", "60"), ("python", "-X", "openclaw")]),
)
askers = st.builds(Asker, st.just(OWN), st.booleans())


@given(raws, facts_of_any, askers, ages_ms, st.sampled_from([10, 45_000, 1_800_000]))
def test_every_lock_file_means_one_of_six_things(
    raw: bytes, facts: ProcessFacts, asker: Asker, mtime_age: int, stale_ms: int
) -> None:
    found = judge(raw, facts, asker, now_ms=NOW_MS, mtime_ms=NOW_MS - mtime_age, stale_ms=stale_ms)
    event(found.kind)
    assert (found.reasons == ()) == (found.kind in ("ours", "held"))
    assert len(set(found.reasons)) == len(found.reasons)
    assert found.may_be_taken_over or not found.may_be_swept
    is_damage = bool(found.reasons) and set(found.reasons) <= {"missing-pid", "invalid-createdAt"}
    assert is_damage == found.kind.startswith("damaged")
    if is_damage:
        assert (found.kind == "damaged_old") == (mtime_age > min(stale_ms, DAMAGED_GRACE_MS))
    if found.kind == "ours":
        assert asker.holds_it
        assert found.text.pid == OWN
    if asker.holds_it and found.text.pid == OWN:
        assert found.kind == "ours", "what we hold is never stale to ourselves"


def test_no_lock_file_is_free() -> None:
    assert judge(None, None, Asker(OWN), now_ms=NOW_MS, mtime_ms=0).kind == "free"


@given(raws, facts_of_any, st.integers(0, 4_000_000), st.integers(0, 4_000_000))
def test_time_makes_a_lock_file_staler_and_never_fresher(
    raw: bytes, facts: ProcessFacts, mtime_age: int, later: int
) -> None:
    mtime = NOW_MS - mtime_age
    now = judge(raw, facts, Asker(OWN), now_ms=NOW_MS, mtime_ms=mtime)
    then = judge(raw, facts, Asker(OWN), now_ms=NOW_MS + later, mtime_ms=mtime)
    assert then.may_be_taken_over or not now.may_be_taken_over
    assert set(now.reasons) <= set(then.reasons)


@given(
    st.integers(1, 2**31 - 1),
    st.integers(1, 10**12),
    st.none() | st.integers(0, 2**40),
    st.integers(0, 400),
    st.integers(0, 10**13),
)
def test_what_is_written_reads_back_at_any_length(
    pid: int, max_hold_ms: int, starttime: int | None, length: int, created_ms: int
) -> None:
    raw = write_lock(pid, created_ms, max_hold_ms, starttime, length=length)
    assert len(raw) >= length
    assert raw.endswith(b"\n")
    text = read_lock(raw)
    assert text.pid == pid
    assert text.starttime == starttime
    assert text.max_hold_ms == min(max_hold_ms, MAX_HOLD_MS_MAX)
    assert text.created_ms is not None
    assert abs(text.created_ms - created_ms) <= 1
    assert list(json.loads(raw)) == ["pid", "createdAt", "maxHoldMs", *(["starttime"] if starttime is not None else [])]


def test_the_text_is_the_one_that_openclaw_writes() -> None:
    assert write_lock(1234, 1_779_444_000_000, 300_000, 456_789) == (
        b'{\n  "pid": 1234,\n  "createdAt": "2026-05-22T10:00:00.000Z",\n'
        b'  "maxHoldMs": 300000,\n  "starttime": 456789\n}\n'
    )


@given(st.integers(1, 400_000), st.integers(0, 10), st.integers(0, 2_000_000))
def test_a_lock_of_ours_is_respected_for_as_long_as_it_says(max_hold_ms: int, starttime: int, age_ms: int) -> None:
    """By whoever else asks, Holdfast or OpenClaw, as long as we live and are named as OpenClaw is."""
    raw = write_lock(OTHER, NOW_MS - age_ms, max_hold_ms, starttime)
    facts = ProcessFacts(True, starttime, ("python", "-X", "openclaw", "-m", "holdfast", "up"))
    found = judge(raw, facts, Asker(OWN), now_ms=NOW_MS, mtime_ms=NOW_MS - age_ms)
    assert (found.kind == "held") == (age_ms <= min(max_hold_ms, 1_800_000))
    assert not found.may_be_swept


@given(texts.map(lambda raw: json.dumps({**json.loads(raw), "pid": OTHER}).encode()), facts_of_any, ages_ms)
def test_the_dead_hold_nothing_and_the_living_are_swept_never(raw: bytes, facts: ProcessFacts, mtime_age: int) -> None:
    text = read_lock(raw)
    assume(text.pid == OTHER)
    found = judge(raw, facts, Asker(OWN), now_ms=NOW_MS, mtime_ms=NOW_MS - mtime_age)
    was_recycled = None not in (text.starttime, facts.starttime) and text.starttime != facts.starttime
    if not facts.alive or was_recycled:
        assert found.may_be_taken_over
        assert found.may_be_swept
    elif not facts.arguments or looks_like_openclaw(facts.arguments):
        assert not found.may_be_swept or found.kind == "damaged_old"


def test_a_lock_of_our_own_process_that_it_does_not_hold_is_an_orphan() -> None:
    raw = write_lock(OWN, NOW_MS, 300_000, 7)
    facts = ProcessFacts(True, 7, OPENCLAW)
    assert judge(raw, facts, Asker(OWN), now_ms=NOW_MS, mtime_ms=NOW_MS).reasons == ("orphan-self-pid",)
    assert judge(raw, facts, Asker(OWN, holds_it=True), now_ms=NOW_MS, mtime_ms=NOW_MS).kind == "ours"


def test_a_file_that_is_far_too_long_says_nothing() -> None:
    assert read_lock(b'{"pid": 7, "x": "' + b"y" * TEXT_BYTES_MAX + b'"}') == LockText()


@pytest.mark.parametrize(
    ("arguments", "is_openclaw"),
    [
        (["openclaw"], True),
        (["/opt/bin/OpenClaw", "gateway"], True),
        (["C:\\tools\\openclaw.cmd"], True),
        (["/opt/openclaw-gateway"], True),
        (["node", "/opt/openclaw.mjs"], True),
        (["node", "/opt/openclaw/dist/index.js", "gateway"], True),
        (["node", "/opt/openclaw/dist/index.js"], False),
        (["node", "src/entry.ts", "agent"], True),
        (["python", "-X", "openclaw", "-m", "holdfast", "up"], True),
        (["python", "-m", "holdfast", "up"], False),
        (["python", "--openclaw"], False),
        (["sleep", "60"], False),
        ([], False),
    ],
)
def test_whose_command_line_names_openclaw(arguments: list[str], is_openclaw: bool) -> None:
    assert looks_like_openclaw(arguments) is is_openclaw
