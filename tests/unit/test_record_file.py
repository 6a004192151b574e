"""The fence record on disk: the newest whole slot counts, whatever happened to the other or to the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.errors import ResourceError
from holdfast.session.fence import Epoch, Fingerprint, Intent, Record
from holdfast.store.embedded.record_file import BEAT_AT, INTENT_AT, SLOT_BYTES, RecordFile, boot_id

NONCE = "00112233445566778899aabbccddeeff"
INTENT = Intent(100, 20, 12345, b"twenty bytes of text")


def record(end: int, **changes: object) -> Record:
    at = Fingerprint(1, 2, end, 4, 5)
    whole = Record(
        boot_id(), Epoch(3, NONCE), "turn_1", "p_1", at, end, b"l" * 32, "leaf", 10, b"a" * 32, 7, b"s" * 32, "*", -1,
        "foreign_turn", "somebody",
    )  # fmt: skip
    return replace(whole, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fence" / "t_1"


@pytest.fixture
def file(path: Path) -> Iterator[RecordFile]:
    path.parent.mkdir()
    opened = RecordFile(path)
    yield opened
    opened.close()


def damage(path: Path, at: int, data: bytes = b"\xff" * 16) -> None:
    with path.open("r+b") as raw:
        raw.seek(at)
        raw.write(data)


def again(path: Path) -> RecordFile:
    """The same file as another process has it open."""
    return RecordFile(path)


# ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_file_has_no_record(file: RecordFile) -> None:
    assert file.read() is None
    assert file.peek() is None
    assert file.read_intent() is None


def test_every_field_comes_back(file: RecordFile, path: Path) -> None:
    whole = record(1)
    file.write(whole)
    assert file.read() == whole
    other = again(path)
    assert other.read() == whole
    other.close()


def test_the_newest_of_many_counts_for_everybody(file: RecordFile, path: Path) -> None:
    other = again(path)
    for end in range(1, 8):
        (file if end % 3 else other).read()
        (file if end % 3 else other).write(record(end))
        for one in (file, other):
            assert one.peek() == record(end)
            assert one.read() == record(end)
    other.close()


@pytest.mark.parametrize("writes", [2, 3])
def test_if_the_newest_slot_is_damaged_the_one_before_counts(file: RecordFile, path: Path, writes: int) -> None:
    for end in range(1, writes + 1):
        file.write(record(end))
    damage(path, writes % 2 * SLOT_BYTES + 40)
    other = again(path)
    for one in (file, other):
        assert one.read() == record(writes - 1)
    file.write(record(99))
    assert other.read() == record(99)
    other.close()


@pytest.mark.parametrize("at", [0, 4, 8, 16, 20])
def test_damage_anywhere_in_a_slot_is_noticed(file: RecordFile, path: Path, at: int) -> None:
    file.write(record(1))
    damage(path, SLOT_BYTES + at, b"\xfe")
    assert file.read() is None


@pytest.mark.parametrize("data", [b"", b"\0" * 5000, b"garbage" * 700])
def test_a_file_that_is_damaged_altogether_has_no_record_and_takes_a_new_one(
    file: RecordFile, path: Path, data: bytes
) -> None:
    file.write(record(1))
    path.write_bytes(data)
    assert file.read() is None
    file.write(record(2))
    assert file.read() == record(2)


def test_a_refused_write_leaves_the_newest_record_alone(file: RecordFile, path: Path) -> None:
    """The next one must again go to the older slot: the newest is all there is if that one is torn."""
    file.write(record(1))
    file.write(record(2))
    file.read()
    kept, unwritable = os.dup(file.fd), os.open(path, os.O_RDONLY)
    os.dup2(unwritable, file.fd)
    with pytest.raises(ResourceError):
        file.write(record(3))
    os.dup2(kept, file.fd)
    for fd in (kept, unwritable):
        os.close(fd)
    assert file.read() == record(2)
    before = path.read_bytes()
    file.write(record(4))
    changed = [at for at, (old, new) in enumerate(zip(before, path.read_bytes(), strict=True)) if old != new]
    assert file.read() == record(4)
    damage(path, min(changed))
    assert file.read() == record(2)


def test_a_record_that_does_not_fit_is_refused(file: RecordFile) -> None:
    file.write(record(1))
    with pytest.raises(ValueError, match="does not fit"):
        file.write(record(2, leaf="x" * 3000))
    assert file.read() == record(1)


def test_a_leaf_of_the_longest_allowed_id_fits(file: RecordFile) -> None:
    file.write(record(1, leaf="é" * 256, foreign_detail="é" * 200))
    assert file.read() == record(1, leaf="é" * 256, foreign_detail="é" * 200)


# ── a file that vanishes ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("folder_too", [False, True])
def test_what_an_open_deleted_file_says_counts_no_more(file: RecordFile, path: Path, folder_too: bool) -> None:
    file.write(record(1))
    fd = file.fd
    if folder_too:
        shutil.rmtree(path.parent)
    else:
        path.unlink()
    assert file.read() is None
    assert path.exists()
    assert file.fd == fd  # other threads may be using it
    file.write(record(2))
    other = again(path)
    assert other.read() == record(2)
    other.close()


def test_a_file_made_again_by_somebody_else_is_followed(file: RecordFile, path: Path) -> None:
    file.write(record(1))
    path.unlink()
    other = again(path)
    other.write(record(7))
    assert file.read() == record(7)
    other.close()


def test_a_folder_that_cannot_be_made_is_a_resource_error(file: RecordFile, path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("in the way")
    with pytest.raises(ResourceError):
        file.read()


# ── intents ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_intent_counts_until_the_next_record(file: RecordFile, path: Path) -> None:
    file.write(record(1))
    file.note_intent(INTENT)
    other = again(path)
    assert other.read() == record(1)
    assert other.read_intent() == INTENT
    file.write(record(1))
    assert file.read_intent() is None
    other.read()
    assert other.read_intent() is None
    other.close()


def test_an_intent_may_precede_the_first_record(file: RecordFile, path: Path) -> None:
    file.read()
    file.note_intent(INTENT)
    other = again(path)
    assert other.read() is None
    assert other.read_intent() == INTENT
    other.close()


def test_a_short_intent_keeps_its_length(file: RecordFile) -> None:
    file.read()
    short = Intent(1, 3, 5, b"abc")
    file.note_intent(short)
    assert file.read_intent() == short


def test_a_damaged_intent_counts_for_nothing(file: RecordFile, path: Path) -> None:
    file.write(record(1))
    file.note_intent(INTENT)
    damage(path, INTENT_AT + 20)
    assert file.read_intent() is None


# ── beats ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_beat_reads_differently_and_touches_nothing_else(file: RecordFile, path: Path) -> None:
    file.write(record(1))
    file.note_intent(INTENT)
    seen = {file.read_beat()}
    for count in range(1, 4):
        file.beat(NONCE, count)
        seen.add(file.read_beat())
        assert file.read_beat() == file.read_beat()
    file.beat("ff" * 16, 3)
    seen.add(file.read_beat())
    assert len(seen) == 5
    assert file.read() == record(1)
    assert file.read_intent() == INTENT
    assert path.stat().st_size > BEAT_AT


def test_the_holder_is_the_process_that_noted_itself_last(file: RecordFile) -> None:
    assert file.holder_pid() in (None, 0)
    file.note_holder()
    assert file.holder_pid() == os.getpid()
