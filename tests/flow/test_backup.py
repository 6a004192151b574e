"""`holdfast backup` copies a state that is in use, `holdfast restore` makes one of it: whole, or not at all."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast.cli.main import run
from holdfast.clock import SystemClock
from holdfast.doctor.checkup import look
from holdfast.errors import InputError, ResourceError
from holdfast.opening import examine
from holdfast.store.embedded import backup as backups
from holdfast.store.embedded.backup import MANIFEST, give_name, make_backup, restore_backup
from holdfast.testing.model import ScriptedModel
from holdfast.testing.world import World, echo

KEY = "agent:main:main"


async def test_a_restored_state_has_what_was_said_and_goes_on_with_what_was_open(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.settled(await world.inbound(KEY, "hello"))
        await world.idle()
        async with world.hf.turn(KEY):  # the next one waits
            open_one = await world.inbound(KEY, "still open")
            saved = make_backup(world.state, tmp_path / "b.tar.gz", SystemClock())
        await world.settled(open_one)
        await world.settled(await world.inbound(KEY, "after the backup"))
        await world.idle()
    assert (saved.sessions, saved.open_inputs, saved.undelivered, saved.remarks) == (1, 1, 0, ())
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o777 == 0o600
    path = tmp_path / "restored"
    (path / "state").mkdir(parents=True)
    restore_backup(tmp_path / "b.tar.gz", path / "state", SystemClock())
    _, found = look(lambda: examine(str(path / "state")))
    assert [one.text for one in found if one.check == "rights"] == []
    async with World(path) as world:
        held = await world.hf.held()
        assert held is not None
        assert saved.at in held.reason
        assert (await world.hf.input(open_one)).state == "queued", "nothing is run before somebody has looked"
        await world.hf.release()
        view = await world.settled(open_one)
        assert view.answer == "re: still open"
        assert [text for _, text in await world.said(KEY)] == ["hello", "re: hello", "still open", "re: still open"]


async def test_a_backup_made_while_many_write_loses_nothing_that_it_was_told(tmp_path: Path) -> None:
    """Messages come in all the time; every backup, restored, answers each that its ledger holds exactly once."""
    keys = [f"agent:main:c{number}" for number in range(4)]
    told: list[list[str]] = []
    async with World(tmp_path, model=ScriptedModel(otherwise=echo)) as world:
        inputs: list[str] = []
        done = asyncio.Event()

        async def talk(key: str) -> None:
            number = 0
            while not done.is_set():
                number += 1
                inputs.append(await world.inbound(key, f"{key} {number}"))
                await world.settled(inputs[-1])

        talking = [asyncio.create_task(talk(key)) for key in keys]
        for number in range(4):
            while len(inputs) < 8 * (number + 1):
                await world.settled(inputs[-1]) if inputs else await asyncio.sleep(0)
            told.append(list(inputs))
            await asyncio.to_thread(make_backup, world.state, tmp_path / f"b{number}.tar", SystemClock())
        done.set()
        await asyncio.gather(*talking)
    for number, before in enumerate(told):
        path = tmp_path / f"r{number}"
        path.mkdir()
        restore_backup(tmp_path / f"b{number}.tar", path / "state", SystemClock(), hold=False)
        async with World(path) as world:
            for one in before:
                assert (await world.settled(one)).state == "answered"
            await world.idle(passing_s=120.0)  # some were being sent: whether they arrived nobody knows
            for key in keys:
                said = await world.said(key)
                asked = [text for role, text in said if role == "user"]
                assert [text for role, text in said if role == "assistant"] == [f"re: {text}" for text in asked]
                assert len(set(asked)) == len(asked)


def kept(tmp_path: Path) -> Path:
    """A backup of a small state."""
    assert run(["--state", str(tmp_path / "state"), "send", KEY, "hello"]) == 0
    make_backup(tmp_path / "state", tmp_path / "b.tar", SystemClock())
    return tmp_path / "b.tar"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-11_000])


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    at = raw.index(b'"hello"')
    raw[at + 1] ^= 1
    file.write_bytes(raw)


def rewritten(change: Callable[[tarfile.TarInfo], tarfile.TarInfo | None], more: tuple[str, bytes] | None = None):
    """The same archive with other members."""

    def act(file: Path) -> None:
        import io

        draft = file.with_suffix(".new")
        with tarfile.open(file) as old, tarfile.open(draft, "w") as new:
            if more is not None:
                info = tarfile.TarInfo(more[0])
                info.size = len(more[1])
                new.addfile(info, io.BytesIO(more[1]))
            for member in old:
                data, member = old.extractfile(member), change(member)
                if member is not None:
                    new.addfile(member, data)
        os.replace(draft, file)

    return act


def newer(file: Path) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw.replace(b'"format": 1', b'"format": 9'))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "incomplete"),
        (flip, "not what was backed up"),
        (rewritten(lambda one: None if one.name == MANIFEST else one), "incomplete"),
        (rewritten(lambda one: one, ("../outside", b"x")), "leads out of it"),
        (rewritten(lambda one: one, ("/tmp/outside", b"x")), "leads out of it"),
        (rewritten(lambda one: one, ("sessions/more.jsonl", b"x\n")), "not what was backed up"),
        (rewritten(lambda one: None if one.name == "ledger.sqlite3" else one), "not what was backed up"),
        (newer, "newer Holdfast"),
        (lambda file: file.write_bytes(b"no archive at all"), "no backup"),
        (lambda file: file.write_bytes(b""), "no backup"),
    ],
    ids=["cut", "changed", "no manifest", "dots", "absolute", "too much", "no ledger", "newer", "text", "empty"],
)
def test_what_is_no_whole_backup_is_refused_and_leaves_nothing(
    tmp_path: Path, damage: Callable[[Path], object], says: str
) -> None:
    file = kept(tmp_path)
    damage(file)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=says):
        restore_backup(file, tmp_path / "there", SystemClock())
    assert sorted(tmp_path.iterdir()) == before


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    file = kept(tmp_path)
    with tarfile.open(file, "a") as tar:
        link = tarfile.TarInfo("sessions/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(InputError, match="does not belong there"):
        restore_backup(file, tmp_path / "there", SystemClock())
    assert not (tmp_path / "there").exists()


def test_nothing_that_is_there_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = kept(tmp_path)
    with pytest.raises(InputError, match="there already"):
        make_backup(tmp_path / "state", file, SystemClock())
    with pytest.raises(InputError, match="lies in the state itself"):
        make_backup(tmp_path / "state", tmp_path / "state" / "b.tar", SystemClock())
    with pytest.raises(InputError, match="there already"):
        restore_backup(file, tmp_path / "state", SystemClock())
    with pytest.raises(ResourceError, match="no state directory"):
        make_backup(tmp_path / "nowhere", tmp_path / "c.tar", SystemClock())
    assert run(["--state", str(tmp_path / "state"), "restore", str(tmp_path / "missing.tar")]) != 0
    assert "there already" in capsys.readouterr().err


def test_the_token_and_what_belongs_to_processes_stay_behind(tmp_path: Path) -> None:
    file = kept(tmp_path)
    (tmp_path / "state" / "token").write_text("secret token")
    (tmp_path / "state" / "agents").mkdir()
    (tmp_path / "state" / "agents" / "note.md").write_text("a note")
    os.symlink("/etc/passwd", tmp_path / "state" / "agents" / "link")
    saved = make_backup(tmp_path / "state", tmp_path / "c.tar", SystemClock())
    assert saved.remarks == ("agents/link is no regular file and was left out",)
    with tarfile.open(tmp_path / "c.tar") as tar:
        names = tar.getnames()
    assert "agents/note.md" in names
    assert not any(name.startswith(("fence", "processes", "token", "ledger.lock", "reserve")) for name in names)
    make_backup(tmp_path / "state", tmp_path / "d.tar", SystemClock(), with_token=True)
    with tarfile.open(tmp_path / "d.tar") as tar:
        assert "token" in tar.getnames()
    assert file.exists()


def test_a_backup_that_is_killed_leaves_no_file_that_looks_like_one(tmp_path: Path) -> None:
    assert run(["--state", str(tmp_path / "state"), "send", KEY, "hello"]) == 0
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from holdfast.clock import SystemClock\n"
        "from holdfast.store.embedded.backup import make_backup, restore_backup\n"
        "def progress(name, done, total):\n"
        "    if name.endswith('.jsonl'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "folder = Path(sys.argv[1])\n"
        "if sys.argv[2] == 'backup':\n"
        "    make_backup(folder / 'state', folder / 'b.tar', SystemClock(), progress=progress)\n"
        "restore_backup(folder / 'whole.tar', folder / 'there', SystemClock(), progress=progress)\n"
    )
    make_backup(tmp_path / "state", tmp_path / "whole.tar", SystemClock())
    for what, at in (("backup", "b.tar"), ("restore", "there")):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path), what], check=False)
        assert done.returncode == -signal.SIGKILL
        assert not (tmp_path / at).exists()


def test_a_state_that_shrinks_while_it_is_copied_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path)
    transcript = next((tmp_path / "state" / "sessions").glob("*/*.jsonl"))
    whole, seen = transcript.read_bytes(), list[str]()

    def progress(name: str, done: int, total: int) -> None:
        if name.endswith(".jsonl"):
            seen.append(name)
            transcript.write_bytes(whole[:100] if len(seen) == 1 else whole)

    saved = make_backup(tmp_path / "state", tmp_path / "c.tar", SystemClock(), progress=progress)
    assert len(seen) == 2
    assert saved.files == 3
    monkeypatch.setattr(backups, "TRIES", 1)
    seen.clear()
    with pytest.raises(ResourceError, match="changed too much"):
        make_backup(tmp_path / "state", tmp_path / "d.tar", SystemClock(), progress=progress)
    assert not (tmp_path / "d.tar").exists()


async def test_both_commands_answer_in_words_and_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = str(tmp_path / "state")
    async with holdfast.open(state):
        pass
    file, there = str(tmp_path / "b.tar.gz"), str(tmp_path / "there")
    assert await asyncio.to_thread(run, ["--state", state, "backup", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sessions"] == 0
    assert await asyncio.to_thread(run, ["--state", there, "restore", file]) == 0
    assert "Work is held back" in capsys.readouterr().out
    assert await asyncio.to_thread(run, ["--state", there, "recover", "--release"]) == 0
    assert "released" in capsys.readouterr().out
    assert await asyncio.to_thread(run, ["--state", "postgres://db", "backup", file]) != 0
    assert "pg_dump" in capsys.readouterr().err


def test_a_disk_that_takes_no_more_leaves_neither_half_a_backup_nor_half_a_state(tmp_path: Path) -> None:
    file = kept(tmp_path)
    before = sorted(tmp_path.iterdir())
    code = (
        "import resource, signal, sys\n"
        "from holdfast.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "main(sys.argv[1:])\n"
    )
    for arguments in (["--state", "state", "backup", "c.tar"], ["--state", "there", "restore", file.name]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "Traceback" not in done.stderr, done.stderr
        assert sorted(tmp_path.iterdir()) == before


def test_a_disk_without_hard_links_takes_backups_too_and_nothing_is_written_over(tmp_path: Path) -> None:
    def refuses(_: Path, __: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    draft, to = tmp_path / ".draft", tmp_path / "b.tar"
    draft.write_text("whole")
    give_name(draft, to, refuses)
    assert (to.read_text(), draft.exists()) == ("whole", False)
    draft.write_text("another")
    with pytest.raises(FileExistsError):
        give_name(draft, to, refuses)
    with pytest.raises(FileExistsError):
        give_name(draft, to)
    assert to.read_text() == "whole"
