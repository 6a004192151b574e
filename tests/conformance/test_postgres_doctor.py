"""`holdfast doctor` on states in PostgreSQL that are really broken, one way each: it finds that and nothing else, and
mends what can be mended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import holdfast
from holdfast.cli.main import run
from holdfast.doctor.database import NOT_APPLICABLE
from holdfast.session.mending import SET_ASIDE_TYPE
from tests.conformance import postgres_server
from tests.faults.test_readers import KEY, talk

QUIET = {("rights", "superuser")}
"""What says something of the server that the tests run on."""
NOW_MS = "(extract(epoch from now())*1000)::bigint"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with postgres_server.running() as url:
        yield url


@dataclass
class Patient:
    url: str
    capsys: pytest.CaptureFixture[str]
    said: str = ""

    def doctor(self, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        """The exit code and the findings."""
        self.capsys.readouterr()
        code = run(["--state", self.url, "doctor", "--json", *arguments])
        self.said = self.capsys.readouterr().out
        found = json.loads(self.said)["findings"]
        return code, [one for one in found if (one["check"], one["subject"]) not in QUIET]

    def sql(self, statement: str, *values: object) -> list[Any]:
        """By somebody who knows SQL, and none of our rules."""
        with psycopg.connect(self.url, autocommit=True, options="-c search_path=holdfast") as conn:
            done = conn.execute(statement.encode(), values or None)
            return done.fetchall() if done.description else []


@pytest.fixture
def patient(
    server: str, tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Patient]:
    """A state in which something was asked, answered and delivered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_GATEWAY_PORT", "0")
    monkeypatch.setenv("HOLDFAST_NODE_DIR", str(tmp_path / "node"))
    with postgres_server.database(server) as url:
        made = Patient(url, capsys)
        asyncio.run(talk(url))
        made.sql("update outbox set state='sent'")
        yield made


Break = Callable[[Patient], object]


def as_nobody(change: str) -> Break:
    """What leaves no trace: triggers were switched off meanwhile."""
    off, on = (f"alter table lines {word} trigger user" for word in ("disable", "enable"))

    def do(patient: Patient) -> None:
        for one in (off, change, on):
            patient.sql(one)

    return do


def die_in_a_turn(patient: Patient) -> None:
    code = (
        "import asyncio, os, signal, sys, holdfast\n"
        "async def main():\n"
        "    async with holdfast.open(sys.argv[1]) as hf, hf.turn(sys.argv[2]) as turn:\n"
        "        await turn.append(holdfast.user('never answered'))\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, patient.url, KEY])
    assert done.returncode == -signal.SIGKILL


def forget_who_runs_an_input(patient: Patient) -> None:
    asyncio.run(accept(patient.url))
    patient.sql("update inputs set state='running', epoch_nonce='gone', turn='turn_gone' where state='queued'")


async def accept(url: str) -> None:
    async with holdfast.open(url) as hf:
        await hf.accept(holdfast.InboundEvent(KEY, {"content": "later"}))


def does(*statements: str) -> Break:
    def do(patient: Patient) -> None:
        for one in statements:
            patient.sql(one)

    return do


MENDABLE: dict[str, tuple[Break, str]] = {
    "a transcript that no list has": (does("delete from sessions"), "index"),
    "a claim of a node that was killed": (die_in_a_turn, "claims"),
    "a turn that owns nothing": (
        does("update turns set state='running', ended_at_ms=null, outcome=null"), "claims"),
    "an input that no turn runs": (forget_who_runs_an_input, "inputs"),
    "a queue that is miscounted": (
        does("insert into depths values((select id from transcripts), 'hook', 7, 7)"), "queues"),
    "a pin without a reason": (
        does("insert into model_pins(session, id, model, source, reason, set_at_ms, set_by, checked_at_ms, credential,"
             f" holds) values('{KEY}', 'pin_x', 'demo/backup', 'auto', '', {NOW_MS}, 'me', 0, '', 1)"), "pins"),
    "a line that cannot be read": (as_nobody("update lines set raw='{\"torn\": ' where seq=2"), "transcripts"),
    "a line that is gone": (as_nobody("delete from lines where seq=2"), "transcripts"),
    "a line under another id": (as_nobody("update lines set id='another' where seq=2"), "transcripts"),
    "a row that counts lines wrongly": (does("update transcripts set bytes=bytes+1"), "transcripts"),
    "an archive that is half gone": (
        does("insert into archives(id, transcript, session, name, state, why, by, at_ms, bytes, turn)"
             f" values('ar_x', (select id from transcripts), '{KEY}', 'gone', 'deleting', 'asked', 'me', {NOW_MS}, 5,"
             " 'turn_gone')"), "archives"),
    "tables that everybody may read": (
        does("grant select on all tables in schema holdfast to public"), "rights"),
}  # fmt: skip


@pytest.mark.parametrize("broken", MENDABLE)
def test_what_can_be_mended_is_found_left_alone_and_mended_when_asked(patient: Patient, broken: str) -> None:
    assert patient.doctor() == (0, [])
    how, check = MENDABLE[broken]
    how(patient)
    code, found = patient.doctor()
    assert (code, {one["check"] for one in found}, {one["mendable"] for one in found}) == (1, {check}, {True}), found
    assert patient.doctor()[1] == found, "looking changed something"
    assert patient.doctor("--fix") == (0, []), patient.said
    assert any(one["helped"] for one in json.loads(patient.said)["repairs"])


TOLD: dict[str, tuple[Break, str, int]] = {
    "a line that somebody changed": (does("update lines set raw=raw||' ' where seq=2"), "transcripts", 1),
    "a trigger that is off": (does("alter table lines disable trigger lines_watched"), "database", 1),
    "lines of nobody": (does("insert into lines values('nobody', 1, null, '{}', true)"), "ledger", 1),
    "a step that is missing": (does("update migrations set version=0"), "database", 0),
    "an answer without its delivery": (does("delete from outbox"), "deliveries", 1),
    "a hold on work": (does(f"insert into holds values('crash loop', {NOW_MS}, 'too many died')"), "held", 1),
    "a time that is yet to come": (does(f"update turns set started_at_ms={NOW_MS}+3600000"), "clock", 1),
}  # fmt: skip


@pytest.mark.parametrize("broken", TOLD)
def test_what_cannot_be_mended_safely_is_told_with_the_way_out(patient: Patient, broken: str) -> None:
    how, check, code = TOLD[broken]
    how(patient)
    assert patient.doctor()[0] == code, patient.said
    found = [one for one in patient.doctor()[1] if one["check"] == check]
    assert found, patient.said
    assert all(one["way_out"] for one in found)


def test_a_mended_conversation_goes_on_and_its_original_is_kept(patient: Patient) -> None:
    (torn,) = patient.sql("select seq, raw from lines where raw like '%%assistant%%' order by seq desc limit 1")
    as_nobody(f"update lines set raw='{{\"torn\": ' where seq={torn[0]}")(patient)
    assert patient.doctor("--fix") == (0, [])
    (archive,) = patient.sql("select name, why, state from archives")
    assert archive[1:] == ("mended", "kept")
    assert patient.sql("select raw from lines where transcript=%s and seq=%s", archive[0], torn[0]) == [(b'{"torn": ',)]

    async def speak() -> None:
        async with holdfast.open(patient.url) as hf, hf.turn(KEY) as turn:
            await turn.append(holdfast.user("and on it goes"))

    asyncio.run(speak())
    kinds = [json.loads(row[0]).get("customType") for row in patient.sql(
        "select convert_from(raw, 'UTF8') from lines where transcript=(select body from transcripts) order by seq"
    )]  # fmt: skip
    assert SET_ASIDE_TYPE in kinds
    assert patient.doctor() == (0, [])


def test_checks_of_files_are_named_as_not_applicable_with_the_reason(patient: Patient) -> None:
    patient.doctor()
    assert json.loads(patient.said)["not_applicable"] == NOT_APPLICABLE
    run(["--state", patient.url, "doctor"])
    said = patient.capsys.readouterr().out
    assert "not applicable (disk): the database's disk is its server's" in said


def test_a_role_that_may_not_read_the_tables_is_told_what_it_lacks(patient: Patient, server: str) -> None:
    role = f"reader_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"create role {role} login".encode())
    try:
        patient.url = patient.url.replace("postgres:@", f"{role}@").replace("postgres@", f"{role}@")
        code, found = patient.doctor()
        assert (code, [one["check"] for one in found]) == (1, ["rights"])
        assert f"the role {role} may not read the tables" in found[0]["text"]
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f"drop role {role}".encode())
