"""`holdfast doctor` on states that are really broken, one way each: it finds that and nothing else, writes nothing, and
mends what can be mended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.cli.main import run
from holdfast.doctor.checks import CHECKS, judge
from holdfast.doctor.checkup import mend
from holdfast.doctor.repairs import NOTHING
from holdfast.store.views import ArchiveView
from tests.faults import checks, outsider
from tests.faults.test_readers import KEY, see, talk, untouched

NOW_MS = "cast(strftime('%s', 'now') as integer)*1000"
QUIET = {"file system"}
"""What says something of the machine that the tests run on, such as a folder in memory."""


@dataclass
class Patient:
    """A state, and the command on it."""

    state: Path
    capsys: pytest.CaptureFixture[str]
    input_id: str = ""
    said: str = ""
    before: dict[Path, bytes] = field(default_factory=dict[Path, bytes])

    def doctor(self, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        """The exit code and the findings."""
        self.capsys.readouterr()
        code = run(["--state", str(self.state), "doctor", "--json", *arguments])
        self.said = self.capsys.readouterr().out
        found = json.loads(self.said)["findings"]
        return code, [one for one in found if one["check"] not in QUIET]

    def sql(self, statement: str, *values: object) -> None:
        """By somebody who knows SQLite, and none of our rules."""
        with closing(sqlite3.connect(self.state / "ledger.sqlite3")) as ledger, ledger:
            ledger.execute(statement, values)

    def ask(self, question: str, *values: object) -> Any:
        with closing(sqlite3.connect(self.state / "ledger.sqlite3")) as ledger:
            row = ledger.execute(question, values).fetchone()
            return None if row is None else row[0]

    @property
    def transcript(self) -> Path:
        (path,) = (self.state / "sessions").glob("*/*.jsonl")
        return path


@pytest.fixture
def patient(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Patient]:
    """A state in which something was asked, answered and delivered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_GATEWAY_PORT", "0")  # what else runs on this machine is another test's business
    made = Patient(state, capsys, asyncio.run(talk(state)))
    made.sql("update outbox set state='sent'")
    yield made
    with closing(sqlite3.connect(f"file:{state / 'ledger.sqlite3'}?mode=ro", uri=True)) as ledger:
        assert ledger.execute("pragma quick_check").fetchone() == ("ok",)


Break = Callable[[Patient], object]


def unlist(patient: Patient) -> None:
    patient.sql("delete from sessions")


def die_in_a_turn(patient: Patient) -> None:
    code = (
        "import asyncio, os, signal, sys, holdfast\n"
        "async def main():\n"
        "    async with holdfast.open(sys.argv[1]) as hf, hf.turn(sys.argv[2]) as turn:\n"
        "        await turn.append(holdfast.user('never answered'))\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(patient.state), KEY])
    assert done.returncode == -signal.SIGKILL


def forget_the_end_of_a_turn(patient: Patient) -> None:
    patient.sql("update turns set state='running', ended_at_ms=null, outcome=null")


def forget_who_runs_an_input(patient: Patient) -> None:
    asyncio.run(accept(patient.state))
    patient.sql("update inputs set state='running', epoch_nonce='gone', turn='turn_gone' where state='queued'")


async def accept(state: Path) -> None:
    async with holdfast.open(state) as hf:
        await hf.accept(holdfast.InboundEvent(KEY, {"content": "later"}))


def miscount(patient: Patient) -> None:
    patient.sql("insert or replace into depths values('', 'main', 7, 7)")


def pin_silently(patient: Patient) -> None:
    patient.sql(
        "insert into model_pins(session, id, model, source, reason, set_at_ms, set_by, checked_at_ms, credential,"
        f" holds) values(?, 'pin_x', 'demo/backup', 'auto', '', {NOW_MS}, 'me', 0, '', 1)", KEY,
    )  # fmt: skip


def break_a_line(patient: Patient) -> None:
    outsider.append_bytes(str(patient.transcript), '{"torn": \n')


def repeat_an_id(patient: Patient) -> None:
    raw = patient.transcript.read_bytes().splitlines(keepends=True)[1]
    patient.transcript.write_bytes(patient.transcript.read_bytes() + raw)


def lose_a_parent(patient: Patient) -> None:
    line = {"type": "custom", "id": "orphan", "parentId": "never", "customType": "x", "timestamp": "t"}
    outsider.append_bytes(str(patient.transcript), json.dumps(line) + "\n")


def open_a_file(patient: Patient) -> None:
    patient.transcript.chmod(0o644)


def open_a_folder(patient: Patient) -> None:
    (patient.state / "fence").chmod(0o755)


def leave_an_archive(patient: Patient) -> None:
    patient.sql(
        "insert into archives values('ar_x', (select id from transcripts), ?, 'a/b.jsonl', 'begun', 'asked', 'me',"
        f" {NOW_MS}, 5, 'turn_gone', null)", KEY,
    )  # fmt: skip


MENDABLE: dict[str, Break] = {
    "index": unlist, "claims": die_in_a_turn, "claims of nobody": forget_the_end_of_a_turn,
    "inputs": forget_who_runs_an_input, "queues": miscount, "pins": pin_silently, "transcripts": break_a_line,
    "transcripts with an id twice": repeat_an_id, "transcripts without a parent": lose_a_parent,
    "rights": open_a_file, "rights of a folder": open_a_folder, "archives": leave_an_archive,
}  # fmt: skip


@pytest.mark.parametrize("broken", MENDABLE)
def test_what_can_be_mended_is_found_left_alone_and_mended_when_asked(patient: Patient, broken: str) -> None:
    patient.doctor("--fix")  # a program whose opening is told apart from the repair
    MENDABLE[broken](patient)
    with untouched(patient.state):
        code, found = patient.doctor()
    assert (code, [(one["check"], one["level"], one["mendable"]) for one in found]) == (
        1, [(broken.split()[0], "fault", True)],
    ), found  # fmt: skip
    code, left = patient.doctor("--fix")
    assert (code, left) == (0, [])
    (repair,) = json.loads(patient.said)["repairs"]
    assert repair["helped"]
    assert repair["subject"] == found[0]["subject"]
    assert patient.doctor() == (0, [])
    with untouched(patient.state):
        assert patient.doctor("--fix") == (0, [])  # a healthy state is not even opened
    checks.check_transcript(checks.entries(patient.transcript))


def lose_the_ledger(patient: Patient) -> None:
    data = bytearray((patient.state / "ledger.sqlite3").read_bytes())
    patient.before[patient.state / "ledger.sqlite3"] = bytes(data)
    data[4096 : 3 * 4096] = b"\xff" * (2 * 4096)
    (patient.state / "ledger.sqlite3").write_bytes(data)


def hold_work(patient: Patient) -> None:
    patient.sql(f"insert into holds values('crash loop', {NOW_MS}, '3 gateways died')")


def lose_a_delivery(patient: Patient) -> None:
    patient.sql("delete from outbox")


def give_a_delivery_up(patient: Patient) -> None:
    patient.sql("update outbox set state='failed', attempts=5, detail='the channel refused it'")


def lose_a_transcript(patient: Patient) -> None:
    patient.transcript.rename(patient.state.parent / "elsewhere")


def lose_an_archive(patient: Patient) -> None:
    view = asyncio.run(archived(patient.state))
    (patient.state / "archives" / view.name).unlink()


def shorten_an_archive(patient: Patient) -> None:
    view = asyncio.run(archived(patient.state))
    os.truncate(patient.state / "archives" / view.name, 10)


async def archived(state: Path) -> Any:
    async with holdfast.open(state) as hf:
        view = await hf.session(KEY).archive(by="me")
        assert isinstance(view, ArchiveView)
        return view


def link_outside(patient: Patient) -> None:
    (patient.state / "sessions" / "x").mkdir(mode=0o700)
    (patient.state / "sessions" / "x" / "y.jsonl").symlink_to(patient.state.parent / "elsewhere.jsonl")


def set_the_clock_back(patient: Patient) -> None:
    patient.sql("update inputs set accepted_at_ms=accepted_at_ms+7200000")


def orphan_an_input(patient: Patient) -> None:
    asyncio.run(accept(patient.state))
    patient.sql("update inputs set transcript='t_gone' where state='queued'")


TOLD: dict[str, tuple[Break, str]] = {
    "held": (hold_work, "recover --release"),
    "deliveries": (lose_a_delivery, "holdfast why"),
    "deliveries that failed": (give_a_delivery_up, "outbox retry d_"),
    "index": (lose_a_transcript, "backup"),
    "archives": (lose_an_archive, "backup"),
    "archives that are short": (shorten_an_archive, "backup"),
    "links": (link_outside, "move the whole state"),
    "clock": (set_the_clock_back, "NTP"),
    "inputs": (orphan_an_input, "holdfast stop in_"),
}


@pytest.mark.parametrize("broken", TOLD)
def test_what_cannot_be_mended_safely_is_told_with_the_way_out(patient: Patient, broken: str) -> None:
    breaks, way_out = TOLD[broken]
    breaks(patient)
    if broken == "inputs":
        patient.sql("delete from depths")
        patient.doctor("--fix")  # its queue was counted under another name
    with untouched(patient.state):
        code, found = patient.doctor()
        assert (code, {(one["check"], one["level"]) for one in found}) == (1, {(broken.split()[0], "fault")}), found
        assert way_out in found[0]["way_out"]
        assert patient.doctor("--fix") == (code, found)


def test_bad_lines_are_mended_that_a_turn_has_let_pass_or_that_stand_far_from_the_end(patient: Patient) -> None:
    """Neither would be looked at by the next turn: nobody has written since, or the file is large."""

    async def let_pass() -> None:
        async with holdfast.open(patient.state, fence_mode="warn") as hf, hf.turn(KEY) as turn:
            await turn.append(holdfast.user("and now?"))
            async with turn.prompt_window() as window:
                lose_a_parent(patient)
                window.finished("this")
            await turn.append(holdfast.assistant("x" * 1_200_000, model="demo/demo"))

    asyncio.run(let_pass())
    original = patient.transcript.read_bytes()
    unlist(patient)
    code, found = patient.doctor()
    assert (code, [one["check"] for one in found]) == (1, ["index", "transcripts"])
    assert patient.doctor("--fix") == (0, [])
    checks.check_transcript(checks.entries(patient.transcript))
    (kept,) = patient.transcript.parent.glob("*.original-*")
    assert kept.read_bytes() == original
    assert patient.doctor() == (0, [])


def test_a_damaged_ledger_is_told_and_nothing_is_opened_to_mend_anything(patient: Patient) -> None:
    open_a_file(patient)
    lose_the_ledger(patient)
    with untouched(patient.state):
        code, found = patient.doctor("--fix")
    assert code == 1
    assert found[0]["check"] == "ledger"
    assert "holdfast recover" in found[0]["way_out"]
    (patient.state / "ledger.sqlite3").write_bytes(patient.before[patient.state / "ledger.sqlite3"])


def test_a_takeover_is_a_remark_that_leads_to_its_story(patient: Patient) -> None:
    patient.sql(f"update turns set outcome='taken_over', ended_at_ms={NOW_MS}")
    turn = patient.ask("select id from turns")
    code, (found,) = patient.doctor()
    assert (code, found["check"], found["level"]) == (0, "takeovers", "remark")
    assert f"holdfast why {turn}" in found["way_out"]


def test_calls_without_results_and_results_without_calls_are_remarks(patient: Patient) -> None:
    call = {"type": "toolCall", "id": "c1", "name": "work", "arguments": {}}
    said = {"role": "assistant", "content": [call], "stopReason": "toolUse", "timestamp": 1}
    result = {"role": "toolResult", "toolCallId": "c9", "toolName": "work", "content": [], "timestamp": 1}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "so"}], "stopReason": "stop", "timestamp": 1}
    for number, message in enumerate((said, result, answer)):
        parent = outsider.last_id(str(patient.transcript))
        line = {"type": "message", "id": f"x{number}", "parentId": parent, "timestamp": "t", "message": message}
        outsider.append_bytes(str(patient.transcript), json.dumps(line) + "\n")
    code, found = patient.doctor()
    assert (code, [(one["check"], one["level"]) for one in found]) == (0, [("pairs", "remark"), ("pairs", "remark")])


def test_what_was_said_before_a_session_shared_anothers_transcript_is_a_remark(patient: Patient) -> None:
    async def share() -> None:
        async with holdfast.open(patient.state) as hf:
            await hf.accept(holdfast.InboundEvent(KEY, {"content": "hi"}, home="agent:main:home"))
            async with hf.turn("agent:main:home") as turn:
                await turn.append(holdfast.user("hi"))

    asyncio.run(share())
    with untouched(patient.state):
        code, (found,) = patient.doctor("--fix")
    assert (code, found["check"], found["level"], found["mendable"]) == (0, "index", "remark", False)
    assert "before that shared sessions/" in found["text"]


def test_a_conversation_goes_on_where_it_was_once_it_is_listed_again(patient: Patient) -> None:
    unlist(patient)
    assert patient.doctor("--fix") == (0, [])

    async def remembered() -> list[str]:
        async with holdfast.open(patient.state) as hf, hf.turn(KEY) as turn:
            return [part["text"] for message in await turn.context() for part in message["content"]]

    assert asyncio.run(remembered()) == ["hello", "hi there"]


def test_a_repair_that_came_too_late_does_nothing(patient: Patient) -> None:
    """Two doctors with the same findings: the second one finds each of them done."""
    for breaks in (unlist, pin_silently, forget_who_runs_an_input, forget_the_end_of_a_turn, open_a_file):
        breaks(patient)
    found = judge(holdfast.opening.examine(patient.state))

    async def twice() -> list[list[str]]:
        async with holdfast.open(patient.state) as hf:
            return [[one.said for one in await mend(hf, found)] for _ in range(2)]

    first, second = asyncio.run(twice())
    assert NOTHING not in first
    assert set(second) == {NOTHING}
    assert patient.doctor() == (0, [])


def test_an_unlisted_transcript_whose_key_cannot_be_told_is_left_where_it_is(patient: Patient) -> None:
    odd = patient.transcript.with_name("brought-along.jsonl")
    odd.write_bytes(patient.transcript.read_bytes())
    odd.chmod(0o600)
    with untouched(patient.state):
        code, (found,) = patient.doctor("--fix")
    assert (code, found["check"], found["level"], found["mendable"]) == (0, "index", "remark", False)


def test_whatever_stands_among_the_transcripts_is_told_and_does_no_harm(patient: Patient) -> None:
    folder = patient.transcript.parent
    os.mkfifo(folder / "pipe.jsonl", 0o600)
    (folder / "folder.jsonl").mkdir(0o700)
    Path(os.fsdecode(os.fsencode(folder) + b"/no-text-\xff.jsonl")).write_bytes(b"\xff\n")
    with (folder / "one-line.jsonl").open("wb") as long:
        long.write(b'{"type":"session","version":3}\n"')
        long.truncate(256 * 1024 * 1024)
    for path in folder.iterdir():
        path.chmod(0o700 if path.is_dir() else 0o600)
    code, found = patient.doctor("--fix")
    assert code == 1
    unread = {one["subject"].rpartition("/")[2]: one["text"] for one in found if one["check"] == "transcripts"}
    assert "not a regular file" in unread["pipe.jsonl"]
    assert "not a regular file" in unread["folder.jsonl"]
    assert "cannot be read" in unread["one-line.jsonl"]
    assert any(one["check"] == "index" and "no-text-" in one["subject"] for one in found)
    tracemalloc.start()
    holdfast.opening.examine(patient.state)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 1024 * 1024  # ten times the longest line


def test_an_input_that_was_put_back_is_answered_from_the_line_that_its_turn_left(patient: Patient) -> None:
    """The settlement was lost, the final line is there: it is not answered twice."""
    patient.sql("update inputs set state='running', epoch_nonce='gone', settled_at_ms=null, result=null")
    lines = len(patient.transcript.read_bytes().splitlines())
    assert patient.doctor("--fix")[0] == 0

    async def next_turn() -> str:
        async with holdfast.open(patient.state) as hf:
            await hf.claim(KEY, input_id=patient.input_id)
            return (await hf.input(patient.input_id)).state

    assert asyncio.run(next_turn()) == "answered"
    assert len(patient.transcript.read_bytes().splitlines()) == lines


async def test_a_state_that_is_being_used_is_healthy_and_stays_as_it_is(state: Path, tmp_path: Path) -> None:
    """A turn that owns, one that waits, an answer on its way: seen from another process."""
    async with holdfast.open(state) as hf:
        event = holdfast.InboundEvent(KEY, {"content": "hello"}, route=holdfast.Route("x", "y"))
        accepted = await hf.accept(event)
        assert isinstance(accepted, holdfast.Accepted)
        await hf.accept(holdfast.InboundEvent(KEY, {"content": "and then"}))
        async with hf.turn(KEY, input_id=accepted.input_id) as turn:
            await turn.append_input([{"role": "user", "content": "hello"}])
            said = await asyncio.to_thread(doctor_apart, state, tmp_path)
            await turn.append(holdfast.assistant("hi", model="demo/demo"))
    assert said["ok"]
    assert [one for one in said["findings"] if one["check"] not in QUIET] == []


@pytest.mark.long
async def test_nothing_is_found_while_many_sessions_are_busy(state: Path, tmp_path: Path) -> None:
    """Turns, answers on their way, titles and archives come and go between the looks."""
    over = asyncio.Event()

    async def busy(hf: holdfast.Holdfast, key: str, route: holdfast.Route | None) -> int:
        turns = archives = 0
        while not over.is_set():
            await hf.accept(holdfast.InboundEvent(key, {"content": "hello"}, route=route))
            accepted = await hf.accept(holdfast.InboundEvent(key, {"content": "and this"}))
            assert isinstance(accepted, holdfast.Accepted)
            for one in reversed(await hf.inputs(session=key, state="queued")):
                async with hf.turn(key, input_id=one.id, wait_s=30) as turn:
                    await turn.append_input([{"role": "user", "content": "hello"}])
                    async with turn.prompt_window() as window:
                        await asyncio.sleep(0.01)
                        window.finished("hi")
                    await turn.append(holdfast.assistant("hi", model="demo/demo"))
                    turns += 1
            await hf.session(key).rename(f"title {turns}")
            if route is None and turns % 10 == 0:
                archives += isinstance(await hf.session(key).archive(by="me", wait_s=30), ArchiveView)
        assert archives or route is not None
        return turns

    async with holdfast.open(state) as hf, holdfast.open(state) as other:
        handles = (hf, other)
        routes = (None, None, holdfast.Route("x", "y"), holdfast.Route("x", "z"))
        work = [
            asyncio.create_task(busy(handles[n % 2], f"agent:main:busy:direct:p{n}", routes[n % 4])) for n in range(8)
        ]
        looks = [await asyncio.to_thread(look_apart, state, tmp_path) for _ in range(4)]
        over.set()
        turns = await asyncio.gather(*work)
    assert all(turns)
    assert [one for found in looks for one in found if one["check"] not in QUIET] == []


def see_all_but_marks(state: Path) -> dict[str, object]:
    """Readers of the living process move marks of their own in SQLite's shared memory, whenever they look."""
    return {name: found for name, found in see(state).items() if not name.endswith("-shm")}


def doctor_apart(state: Path, folder: Path) -> dict[str, Any]:
    """From another process, which must not change anything."""
    before = see_all_but_marks(state)
    said = in_another_process(state, folder)
    assert see_all_but_marks(state) == before
    return said


def look_apart(state: Path, folder: Path) -> list[dict[str, Any]]:
    """The findings, by another process."""
    return in_another_process(state, folder)["findings"]


def in_another_process(state: Path, folder: Path) -> dict[str, Any]:
    env = {**os.environ, "HOLDFAST_GATEWAY_PORT": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "--state", str(state), "doctor", "--json"],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_pin_that_cannot_be_one_counts_for_nothing_and_ends_no_turn(patient: Patient) -> None:
    pin_silently(patient)

    async def turn() -> tuple[object, object]:
        async with holdfast.open(patient.state) as hf, hf.turn(KEY) as turn:
            return turn.pin, (await hf.models()).pins

    assert asyncio.run(turn()) == (None, [])


def test_the_words_for_people_say_what_was_mended_and_what_to_do(patient: Patient) -> None:
    unlist(patient)
    patient.sql("update outbox set state='failed', attempts=5, detail='refused'")
    assert run(["--state", str(patient.state), "doctor"]) == 1
    told = patient.capsys.readouterr().out
    assert "--fix lists it again, and would move no file" in told
    assert told.splitlines()[-1].startswith("2 fault(s), 0 remark(s), 1 of what was found can be mended with --fix")
    assert run(["--state", str(patient.state), "doctor", "--fix"]) == 1
    told = patient.capsys.readouterr().out
    assert f"listed again as {KEY}; its file stays where it is" in told
    assert "1 fault(s), 0 remark(s), 1 mended" in told


def test_a_wrong_configuration_is_code_78_and_nothing_is_mended(patient: Patient, tmp_path: Path) -> None:
    open_a_file(patient)
    (tmp_path / "holdfast.toml").write_text("[gateway]\ndrain_s = 'x'\ncolour = 1\n")
    with untouched(patient.state):
        code, found = patient.doctor("--fix")
    assert code == 78
    assert [one["check"] for one in found] == ["rights", "config", "config"]


def test_a_port_that_somebody_else_holds_is_told_with_who_it_is(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("HOLDFAST_GATEWAY_PORT", str(taken.getsockname()[1]))
        code, (found,) = patient.doctor()
        assert (code, found["check"], found["level"]) == (1, "port", "fault")
        assert f"pid {os.getpid()}" in found["text"] or sys.platform != "linux"
    assert patient.doctor() == (0, [])
    monkeypatch.setenv("HOLDFAST_GATEWAY_HOST", "192.0.2.1")  # of documentation; no machine has it
    code, found = patient.doctor()
    assert [one["check"] for one in found if one["level"] == "fault"] == ["port"]


def test_a_key_that_is_missing_and_a_file_of_secrets_that_others_may_read(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config = tmp_path / "holdfast.toml"
    config.write_text(
        '[models]\ndefault = "openai/gpt-5"\n[models.providers.anthropic]\napi_key = "sk-secret-canary"\n'
    )
    config.chmod(0o644)
    code, found = patient.doctor("--fix")
    assert (code, [(one["check"], one["level"]) for one in found]) == (
        1,
        [("config", "fault"), ("credentials", "fault")],
    )
    assert "0644" in found[0]["text"]
    assert "OPENAI_API_KEY" in found[1]["text"]
    assert "canary" not in patient.said
    assert config.stat().st_mode & 0o777 == 0o644  # a user's own file, not ours to change
    config.chmod(0o600)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    assert patient.doctor() == (0, [])


def test_files_of_users_in_a_state_keep_the_rights_that_they_have(patient: Patient) -> None:
    (patient.state / "holdfast.toml").write_text("[gateway]\ndrain_s = 5\n")
    (patient.state / "holdfast.toml").chmod(0o644)
    (patient.state / "workspace").mkdir(0o755)
    with untouched(patient.state):
        assert patient.doctor("--fix") == (0, [])


def test_models_are_asked_only_when_online_is_wanted(patient: Patient, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (tmp_path / "holdfast.toml").write_text(
        '[models]\ndefault = "demo/demo"\nfallbacks = ["mine/x"]\n'
        f'[models.providers.mine]\nbase_url = "http://127.0.0.1:{port}/v1"\n'
    )
    assert patient.doctor() == (0, [])
    code, (found,) = patient.doctor("--online")
    assert (code, found["check"], found["subject"]) == (1, "models", "mine/x")


def test_each_check_of_the_table_has_a_broken_state_here() -> None:
    tried = {name.split()[0] for name in [*MENDABLE, *TOLD]} | {"ledger", "takeovers", "pairs"}
    assert {check.name for check in CHECKS} - tried == {
        "disk", "file system", "config", "port", "credentials", "models",  # in test_doctor.py of unit, and below
        "database", "connections", "tls",  # in test_postgres_doctor.py of conformance
    }  # fmt: skip
