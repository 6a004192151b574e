"""Reports from logs: whatever form the lines have, the same failures are counted, each once."""

from __future__ import annotations

import gzip
import io
import json
import logging
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError, SessionTakeoverError
from holdfast.gateway.log import JsonFormatter, TextFormatter
from holdfast.observe.incidents.as_page import report_page
from holdfast.observe.incidents.as_text import length, report_text, sparkline
from holdfast.observe.incidents.findings import Findings, findings_of
from holdfast.observe.incidents.log_events import event_of, lane_class
from holdfast.observe.incidents.log_files import CHUNK_BYTES, NEEDLES, Source, lines_of, lines_of_stream, source_of
from holdfast.observe.incidents.log_lines import LogLine, day_in_name, line_of
from holdfast.observe.incidents.tally import RACED_LOCK, RACED_NOTHING, RACED_RECOVERY, Tally
from holdfast.session.fence import Verdict
from tests.unit import log_story

FORMS = {
    "text": log_story.as_text,
    "json": log_story.as_json,
    "journal": log_story.as_journal,
    "syslog": log_story.as_syslog,
    "gzip": lambda told: gzip.compress(log_story.as_text(told)),
}
T = "2026-05-26T10:00:00.000Z"
CHANGED = "SessionTakeoverError: session file changed while embedded prompt lock was released"


def read(*logs: bytes, chunk_bytes: int = CHUNK_BYTES) -> Findings:
    tally = Tally()
    for log in logs:
        lines = lines_of_stream(io.BytesIO(log), Source("log", None, date(2026, 5, 26)), lambda _: None, chunk_bytes)
        tally.add(event for line in lines if (event := event_of(line)) is not None)
    return findings_of(tally, ["log"])


def lane_error(at: str, lane: str, ms: int = 5000, *, path: str = "/s/one.jsonl", error: str = CHANGED) -> bytes:
    return f'{at} [diagnostic] lane task error: lane={lane} durationMs={ms} error="{error}: {path}"\n'.encode()


@pytest.mark.parametrize("form", FORMS)
def test_a_log_of_122_takeovers_over_37_transcripts_gives_exactly_these(form: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway-2026-05-31.log"
    file.write_bytes(FORMS[form](log_story.story()))
    read_bytes: list[int] = []
    tally = Tally()
    lines = lines_of(file, source_of(file), read_bytes.append)
    tally.add(event for line in lines if (event := event_of(line)) is not None)
    found = findings_of(tally, [str(file)])
    assert (found.takeovers, found.transcripts) == (122, 37)
    assert found.sessions[0].takeovers == 32
    assert set(found.lanes) == set(log_story.LANES)
    assert sum(found.lanes.values()) == 122
    assert found.without_reply == sum(turn % 3 > 0 for turn in range(122))
    assert 4_000 <= (found.durations.p50 or 0) <= (found.durations.max or 0) <= 300_009
    assert found.undated == 0
    assert found.first_ms is not None
    assert datetime.fromtimestamp(found.first_ms / 1000, UTC).date() == log_story.BEGAN.date()
    assert sum(one.takeovers for one in found.buckets) == sum(found.hours) == 122
    assert sum(read_bytes) >= file.stat().st_size


def test_the_order_of_rotated_files_does_not_matter() -> None:
    told = log_story.story()
    halves = told[: len(told) // 2], told[len(told) // 2 :]
    whole = read(log_story.as_text(told))
    other = read(log_story.as_json(halves[1]), log_story.as_text(halves[0]))
    assert (other.takeovers, other.lanes, other.between) == (whole.takeovers, whole.lanes, whole.between)


def test_two_sessions_of_one_transcript_that_fail_at_once_are_two_failures_that_raced() -> None:
    found = read(
        lane_error(T, "session:agent:a:main") + lane_error(T, "main") + lane_error(T, "session:agent:a:main:heartbeat")
    )
    assert found.takeovers == 2
    assert found.raced == {"session:agent:<id>:main and session:agent:<id>:main:heartbeat": 2}


def test_what_raced_is_looked_for_while_the_run_went_on() -> None:
    recovery = b"2026-05-26T09:59:58Z session.recovery.requested session=agent:a:main turn=t epoch=1 reason=dead\n"
    assert read(recovery + lane_error(T, "session:agent:a:main")).raced == {RACED_RECOVERY: 1}
    waited = lane_error("2026-05-26T09:59:59Z", "session:agent:a:x", error="SessionWriteLockTimeoutError: held")
    found = read(waited + lane_error(T, "session:agent:a:main"))
    assert (found.raced, found.lock_timeouts) == ({RACED_LOCK: 1}, 1)
    long_before = lane_error("2026-05-26T08:00:00Z", "session:agent:a:main:heartbeat")
    assert read(long_before + lane_error(T, "session:agent:a:main")).raced == {RACED_NOTHING: 2}


def test_a_walk_down_the_chain_for_a_lock_is_told_apart_from_one_for_a_model() -> None:
    lock = "session file locked (timeout 10000ms): pid=37121 /s/one.jsonl.lock"
    head = f"{T} [model-fallback/decision] decision=candidate_failed requested=a/x candidate"
    found = read(
        f"{head}=a/x reason=timeout next=b/y detail={lock}\n"
        f"{T} [model-fallback/decision] decision=candidate_succeeded candidate=b/y\n"
        f"{head}=a/x reason=rate_limit next=b/y detail=429 Too Many Requests\n"
        f"{T} Embedded agent failed before reply: All models failed (2): a/x: 429 | b/y: 500\n".encode()
    )
    assert (found.decisions, found.local_decisions, found.lock_decisions) == (2, 1, 1)
    assert (found.walks, found.walks_local, found.exhausted, found.exhausted_local) == (2, 1, 1, 0)
    assert found.answered_by_other == {"b/y": 1}
    assert found.pinned_by_local == 1
    assert found.reasons == {"a lock or a changed session": 1, "rate_limit": 1}


def test_warnings_and_recoveries_of_both_programs_are_read() -> None:
    found = read(
        f"{T} [diagnostic] stalled session: sessionId=s sessionKey=agent:a:main state=processing age=216s queueDepth=1 "
        "reason=active_work_without_progress lastProgress=model_call:ended lastProgressAge=142s recovery=none\n"
        f"{T} [diagnostic] stuck session recovery: sessionKey=agent:a:main age=374s action=abort_embedded_run "
        "aborted=true drained=true released=0\n"
        f"{T} WARNING holdfast.recovery: session.stuck session=agent:b:main reason=stale_session_state running_s=400\n"
        f"{T} INFO holdfast.recovery: session.recovery.completed outcome=ineffective session=agent:b:main\n".encode()
    )
    assert found.standstill == {"stalled": 1, "stuck": 1}
    assert found.recoveries == {"effective": 1, "ineffective": 1}
    assert found.longest_standstill_s == 400
    assert not found.is_clean


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_what_our_own_gateway_logs_is_understood(formatter: TextFormatter) -> None:
    text = '[diagnostic] lane task error: lane=%s durationMs=%d error="%s: %s"'
    said = str(SessionTakeoverError(Verdict("foreign_turn", detail="a user's message"), "/state/transcripts/one.jsonl"))
    args = ("main", 1234, "SessionTakeoverError", said)
    record = logging.LogRecord("holdfast.lane", logging.WARNING, __file__, 1, text, args, None)
    found = read(formatter.format(record).encode() + b"\n")
    assert (found.takeovers, found.lanes, found.durations.max) == (1, {"main": 1}, 1234)
    assert found.sessions[0].transcript == "/state/transcripts/one.jsonl"


@pytest.mark.parametrize(
    ("lane", "shown"),
    [
        ("main", "main"),
        ("cron-nested", "cron-nested"),
        ("session:agent:marcus:main:heartbeat", "session:agent:<id>:main:heartbeat"),
        ("session:agent:main:main", "session:agent:<id>:main"),
        ("session:agent:main:cron:4f:run:9", "session:agent:<id>:cron:<id>:run:<id>"),
        ("session:agent:main:ownplugin:direct:someone@example.org", "session:agent:<id>:ownplugin:direct:<id>"),
        ("session:hook:secret-name", "session:hook:<id>"),
    ],
)
def test_no_id_stays_in_the_class_of_a_lane(lane: str, shown: str) -> None:
    assert lane_class(lane) == shown


def test_a_line_without_a_time_counts_all_the_same_and_a_time_of_day_gets_the_day_of_its_file() -> None:
    found = read(lane_error("", "main"))
    assert (found.takeovers, found.undated) == (1, 1)
    line = line_of(b"20:24:16 error diagnostic  lane task error: lane=main", date(2026, 5, 24))
    assert line is not None
    assert line.at_ms == datetime(2026, 5, 24, 20, 24, 16, tzinfo=UTC).timestamp() * 1000
    assert day_in_name("openclaw-2026-05-24.log.gz") == date(2026, 5, 24)
    assert day_in_name("20269999.log") is None


def test_a_zone_is_taken_into_account() -> None:
    one, other = (line_of(f"2026-05-26T{clock} x".encode(), None) for clock in ("12:00:00+02:00", "10:00:00Z"))
    assert one == other


@pytest.mark.parametrize("stamp", ["²", "9" * 5000, "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"])
def test_a_stamp_that_is_no_time_costs_a_line_its_time_and_nothing_else(stamp: str) -> None:
    name = "__REALTIME_TIMESTAMP" if "-" not in stamp else "time"
    line = line_of(json.dumps({name: stamp, "msg": "session.stuck"}).encode(), None)
    assert line is None or line.at_ms is None
    assert read(f"{stamp} session.stuck\n".encode()) is not None


def test_a_gzip_file_that_was_cut_short_is_told_of_after_what_could_be_read(tmp_path: Path) -> None:
    file = tmp_path / "log.gz"
    file.write_bytes(gzip.compress(log_story.as_text(log_story.story()) * 50)[:-40])
    seen: list[LogLine] = []
    with pytest.raises(InputError, match="damaged"):
        seen.extend(lines_of(file, source_of(file), lambda _: None))


@pytest.mark.parametrize("size", [7, 100, 4096])
def test_a_record_is_found_wherever_a_piece_of_the_file_ends(size: int) -> None:
    log = log_story.as_text(log_story.story()[:120])
    assert read(log, chunk_bytes=size) == read(log)
    assert read(log).takeovers > 1


def test_a_line_that_never_ends_costs_no_more_than_its_limit() -> None:
    found = read(b"x" * 30_000_000 + lane_error(T, "main"))
    assert found.takeovers <= 1


@given(
    st.lists(
        st.sampled_from(
            [*NEEDLES, b"{", b'"', b"\n", b"\n\n", b"lane=", b" ", b"=", b"\xff", b"2026-05-26T", b"MESSAGE\n"]
        )
    )
)
def test_no_log_however_broken_ends_a_report(pieces: list[bytes]) -> None:
    found = read(b"".join(pieces), b"__CURSOR=1\n" + b"".join(pieces))
    assert report_text(found)
    assert report_page(found).startswith("<!doctype html>")


def test_a_page_shows_what_a_log_says_and_runs_none_of_it() -> None:
    evil = "<script>alert(1)<img src=x onerror=alert(1)>"
    page = report_page(read(lane_error(T, "session:agent:a:main", path=f"/s/{evil}.jsonl")))
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<img" not in page
    assert "default-src 'none'" in page


def test_text_for_terminals_has_no_control_characters() -> None:
    found = read(lane_error(T, "session:agent:a:main", path="/s/\x1b[2Jx.jsonl"))
    assert "\x1b" not in "\n".join(report_text(found))


def test_nothing_found_is_said_in_every_part() -> None:
    text = report_text(read(b"all is well\n"))
    assert len([line for line in text if line.endswith(": none")]) >= 4
    assert read(b"").is_clean


def test_lengths_and_sparklines_are_short() -> None:
    assert [length(ms) for ms in (None, 350, 12_400, 185_000, 7_440_000, 266_400_000)] == [
        "-", "350 ms", "12.4 s", "3 min 5 s", "2 h 4 min", "3 d 2 h",
    ]  # fmt: skip
    assert sparkline([0, 1, 8]) == " ▁█"
