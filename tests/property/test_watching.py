"""Rules of who is told of and asked, against their statement in words, over random facts."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.recovery.classify import Owner
from holdfast.recovery.progress import WAITS, Doing, Progress, Report
from holdfast.recovery.watching import (
    ABORT_S_MIN,
    LIMIT_GRACE_S,
    WatchSettings,
    examine,
    facts_of,
    in_words,
    is_due,
    marked,
    may_ask,
)
from holdfast.session.fence import Epoch
from holdfast.store.embedded.record_file import PROGRESS_AT, RecordFile, read_report

OWNER = Owner("t_1", ("agent:main:main",), Epoch(3, "aa" * 16), "turn_1", "main", "p_1", 12, "alive", "in_1")
DOINGS: list[Doing] = ["beginning", "model", "tool", "retry", "question", "compaction", "wait", "settling"]
milliseconds = st.integers(0, 4_000_000)
reports = st.builds(
    Report, st.integers(0, 10**9), milliseconds, milliseconds, st.sampled_from(DOINGS), st.text(max_size=64),
    milliseconds, st.none() | milliseconds,
).map(lambda one: replace(one, running_ms=max(one.running_ms, one.still_ms, one.doing_ms)))  # fmt: skip
owners = st.builds(
    lambda life, still_s, is_ours, queued, report: replace(
        OWNER, life=life, still_s=0.0 if is_ours else still_s, is_ours=is_ours, queued=queued, report=report
    ),
    st.sampled_from(["alive", "dead", "unknown"]), st.floats(0, 200), st.booleans(), st.integers(0, 3),
    st.none() | reports,
)  # fmt: skip
settings_ = st.builds(
    WatchSettings, st.floats(1, 1000), st.none() | st.floats(1, 2000), st.sampled_from(["warn", "ask"]), st.booleans(),
    st.sampled_from([(), ("agent:main:main",), ("agent:main:*",), ("agent:other:*",)]),
)  # fmt: skip


@pytest.mark.promise("P9")
@given(owner=owners, watched_s=st.floats(0, 4000), rules=settings_)
def test_only_what_no_longer_lives_is_stuck_and_only_what_was_not_heard_of_stands_still(
    owner: Owner, watched_s: float, rules: WatchSettings
) -> None:
    found = examine(owner, watched_s=watched_s, beat_term_s=90.0, settings=rules)
    event = found.attention.event if found.attention is not None else None
    lives_no_more = owner.life == "dead" or owner.still_s >= 90.0
    assert (event == "session.stuck") == lives_no_more
    if event == "session.stalled":
        report = owner.report
        is_over = report is not None and report.doing == "settling" and owner.queued > 0
        assert found.still_s > rules.warn_s - 0.002 or is_over
        assert report is None or report.doing not in WAITS or report.limit_ms is not None
    assert found.owner.turn in str(facts_of(found, rules))
    assert owner.process in in_words(found)


@pytest.mark.promise("P9")
@given(owner=owners, watched_s=st.floats(0, 4000), rules=settings_, later_s=st.floats(0, 4000))
def test_nobody_is_asked_to_end_without_leave_a_warning_before_the_whole_age_and_the_end_of_its_own_limit(
    owner: Owner, watched_s: float, rules: WatchSettings, later_s: float
) -> None:
    first = examine(owner, watched_s=watched_s, beat_term_s=90.0, settings=rules)
    assert may_ask(first, None, rules) is None, "nobody has been told of it"
    if first.attention is None:
        return
    mark = marked(first, None, rules)
    report = owner.report.later(int(later_s * 1000)) if owner.report is not None else None
    again = examine(
        replace(owner, report=report), watched_s=watched_s + later_s, beat_term_s=90.0, settings=rules
    )  # fmt: skip
    why = may_ask(again, mark, rules)
    assert may_ask(again, replace(mark, asked="before"), rules) is None
    assert may_ask(again, replace(mark, episode=mark.episode + 1), rules) is None
    if why is None:
        return
    assert rules.live_owners == "ask"
    assert rules.self_recovery
    assert "agent:main:main" not in rules.supervised
    assert "agent:main:*" not in rules.supervised
    assert owner.life != "dead"
    assert owner.still_s < 90.0
    assert again.still_s > (rules.abort_s if rules.abort_s is not None else max(ABORT_S_MIN, 3 * rules.warn_s))
    if report is not None and report.limit_ms is not None:
        age_s = (report.still_ms if report.doing == "model" else report.doing_ms) / 1000
        lag_s = 0.0 if owner.is_ours else owner.still_s
        assert age_s + lag_s > report.limit_ms / 1000 + LIMIT_GRACE_S - 0.002


@given(
    warn_s=st.floats(1, 600),
    looks=st.lists(st.floats(0.5, 600), min_size=1, max_size=60),
    doing=st.sampled_from(DOINGS),
)
def test_a_standstill_is_told_of_at_once_and_then_each_time_after_twice_as_long(
    warn_s: float, looks: list[float], doing: Doing
) -> None:
    rules, mark, age_s, told = WatchSettings(warn_s), None, 0.0, 0
    for pause_s in looks:
        age_s += pause_s
        ms = int(age_s * 1000)
        found = examine(
            replace(OWNER, is_ours=True, report=Report(7, ms, ms, doing, "x", ms)), watched_s=age_s, beat_term_s=90.0,
            settings=rules,
        )  # fmt: skip
        due = is_due(found, mark, rules)
        if mark is None:
            assert due == (ms / 1000 > warn_s)
        if due:
            mark, told = marked(found, mark, rules), told + 1
            assert not is_due(found, mark, rules)
    assert told <= max(0.0, math.log2(max(age_s / warn_s, 1e-9))) + 1


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=30))
def test_progress_is_counted_and_its_ages_are_those_of_the_clock(steps: list[tuple[float, bool]]) -> None:
    mono, progress, since, heard = 50.0, Progress.at(50.0), 50.0, 50.0
    for n, (pause_s, is_new) in enumerate(steps):
        mono += pause_s
        progress = progress.begins("tool", f"t{n}", mono) if is_new else progress.heard(mono)
        since, heard = mono if is_new else since, mono
    report = progress.report(mono + 1)
    assert report.count == len(steps)
    assert abs(report.still_ms - (mono + 1 - heard) * 1000) <= 1
    assert abs(report.doing_ms - (mono + 1 - since) * 1000) <= 1
    assert abs(report.running_ms - (mono + 1 - 50.0) * 1000) <= 1


@given(report=reports, cut=st.integers(0, 40))
def test_what_is_handed_over_is_read_as_it_was_by_whoever_asks_for_that_owner_and_a_half_written_one_is_none(
    report: Report, cut: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record"
        record = RecordFile(path)
        assert read_report(path, "aa" * 16) is None
        record.note_progress("aa" * 16, report)
        record.close()
        assert read_report(path, "aa" * 16) == report
        assert read_report(path, "bb" * 16) is None
        raw = bytearray(path.read_bytes())
        raw[PROGRESS_AT + cut] ^= 0xFF
        path.write_bytes(raw)
        assert read_report(path, "aa" * 16) in (None, report)  # past its end, what stands there means nothing
        assert read_report(path.with_name("gone"), "aa" * 16) is None
