"""`holdfast incidents report` as an operator uses it: files of any form in, a report, JSON and a page out."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.unit import log_story


def report(*words: str | Path, given: bytes = b"", path: str | None = None) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, **({} if path is None else {"PATH": path})}
    command = [sys.executable, "-m", "holdfast", "incidents", "report", *map(str, words)]
    return subprocess.run(command, input=given, capture_output=True, check=False, timeout=60, env=env)


def test_files_of_both_kinds_and_a_page(tmp_path: Path) -> None:
    told = log_story.story()
    (tmp_path / "openclaw-2026-05-18.log").write_bytes(log_story.as_json(told[:1500]))
    (tmp_path / "later.log.gz").write_bytes(gzip.compress(log_story.as_text(told[1500:])))
    page = tmp_path / "report.html"
    done = report(tmp_path / "openclaw-2026-05-18.log", tmp_path / "later.log.gz", "--html", page)
    assert (done.returncode, done.stderr) == (1, b"")
    text = done.stdout.decode()
    assert "takeovers: 122 over 37 transcript(s)" in text
    assert "session:agent:<id>:main:heartbeat" in text
    assert f"{0:08x}-54.jsonl (agent a0)" in text
    assert page.stat().st_mode & 0o777 == 0o600
    assert "122" in page.read_text()


def test_json_from_standard_input() -> None:
    done = report("-", "--json", given=log_story.as_journal(log_story.story()))
    found = json.loads(done.stdout)
    assert (found["takeovers"], found["transcripts"], found["sessions"][0]["takeovers"]) == (122, 37, 32)
    assert len(found["lanes"]) == 7


def test_the_journal_is_read_through_its_own_program(tmp_path: Path) -> None:
    (tmp_path / "entries").write_bytes(log_story.as_journal(log_story.story()))
    program = tmp_path / "journalctl"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/entries\n')
    program.chmod(0o700)
    done = report("--journal", "--unit", "openclaw", "--since", "2 days ago", path=f"{tmp_path}:{os.environ['PATH']}")
    assert "takeovers: 122 over 37" in done.stdout.decode()
    assert "--unit=openclaw --user-unit=openclaw --since=2 days ago" in (tmp_path / "asked").read_text()
    program.write_text("#!/bin/sh\necho 'no such unit' >&2\nexit 1\n")
    done = report("--journal", path=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode != 0
    assert b"the journal cannot be read: no such unit" in done.stderr


def test_a_quiet_log_is_no_finding_and_mistakes_name_the_way_out(tmp_path: Path) -> None:
    quiet = tmp_path / "quiet.log"
    quiet.write_bytes(b"2026-05-26T10:00:00Z INFO holdfast.gateway: drained\n")
    done = report(quiet)
    assert done.returncode == 0
    assert b"takeovers: none" in done.stdout
    assert b"name log files, or use --journal" in report().stderr
    assert b"add --journal" in report(quiet, "--unit", "x").stderr
    missing = report(tmp_path / "none.log")
    assert missing.returncode != 0
    assert b"none.log cannot be read: No such file" in missing.stderr


def test_what_can_be_read_of_a_damaged_file_counts(tmp_path: Path) -> None:
    damaged = tmp_path / "log.gz"
    damaged.write_bytes(gzip.compress(log_story.as_text(log_story.story()) * 40)[:-9])
    good = tmp_path / "good.log"
    good.write_bytes(log_story.as_text(log_story.story()[:200]))
    done = report(damaged, good)
    assert done.returncode == 1
    assert b"is damaged" in done.stderr
    assert b"takeovers: " in done.stdout
    assert b"takeovers: none" not in done.stdout
