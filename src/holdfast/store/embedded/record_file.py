"""The fence record on disk: two slots written alternately, and the owner's beat at a fixed place behind them.

    0      slot A   magic, crc32, sequence, length, msgpack of `Record`
    2048   slot B
    4096   beat     16 bytes of the owner's nonce, 8 bytes counter: one unlocked write, read without a lock
    4120   holder   8 bytes pid of whoever took the write lock last: for people only
    4160   intent   what is about to be written: crc32, sequence of the record it follows, offset, length, crc32 of the
                    line, its first 64 bytes
    4288   progress crc32, length, msgpack of the owner's nonce and what its turn was last heard of: written after a
                    beat, read without a lock; a half-written one counts as none

Slots are written under the write lock. The valid slot with the higher sequence counts. A record of another boot is
void: what it says about bytes may never have reached the disk; only its epoch still counts (numbers must keep growing).
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import msgspec

from holdfast.errors import ResourceError
from holdfast.recovery.progress import Doing, Report
from holdfast.session.fence import Intent, Record
from holdfast.store.embedded.machine import here

SLOT_BYTES = 2048
BEAT_AT = 2 * SLOT_BYTES
HOLDER_AT = BEAT_AT + 24
INTENT_AT = BEAT_AT + 64
_HEAD = struct.Struct("<4sIQH")
_BEAT = struct.Struct("<16sQ")
_PID = struct.Struct("<q")
_INTENT = struct.Struct("<QQQI64s")
PROGRESS_AT = 4288
PROGRESS_BYTES = 512
_PROGRESS_HEAD = struct.Struct("<IH")
TOTAL_BYTES = PROGRESS_AT + PROGRESS_BYTES
_MAGIC = b"HFR1"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def boot_id() -> str:
    """Something that changes with each boot of this machine."""
    return here().boot_id()


class RecordFile:
    """One transcript's record. Callers hold the write lock for `read` and `write`; `peek` and beats need no lock.

    All of it raises ResourceError where the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._path_text = str(path)  # asked about at each reading
        self._machine = here()
        self._sequence = 0
        self._known: Record | None = None  # what `_known_raw` holds
        self._known_raw = b""
        self.newest: Record | None = None  # the last valid one that this process has read or written
        self.fd = self._open()
        self._inode = os.fstat(self.fd).st_ino

    def read(self) -> Record | None:
        """The newest valid record, of whatever boot; None if there is none. Costs a stat and a read if it is as we
        left it. A file that was deleted is made again: what the open one says counts for nobody else any more.
        """
        self.follow_path()
        raw = os.pread(self.fd, 2 * SLOT_BYTES, 0)
        if raw != self._known_raw:
            self._known_raw = raw
            self._known, self._sequence = self._newest(raw)
            self.newest = self._known or self.newest
        return self._known

    def peek(self) -> Record | None:
        """The same for a reader without the write lock; it may be a moment old."""
        return self._newest(os.pread(self.fd, 2 * SLOT_BYTES, 0))[0]

    @classmethod
    def _newest(cls, raw: bytes) -> tuple[Record | None, int]:
        for sequence, at in sorted(((cls._sequence_of(raw, at), at) for at in (0, SLOT_BYTES)), reverse=True):
            record = cls._decode(raw, at) if sequence else None
            if record is not None:
                return record, sequence
        return None, 0

    @staticmethod
    def _sequence_of(raw: bytes, at: int) -> int:
        if len(raw) < at + _HEAD.size:
            return 0
        magic, _, sequence, _ = _HEAD.unpack_from(raw, at)
        return sequence if magic == _MAGIC else 0

    @staticmethod
    def _decode(raw: bytes, at: int) -> Record | None:
        _, crc, sequence, length = _HEAD.unpack_from(raw, at)
        body = raw[at + _HEAD.size : at + _HEAD.size + length]
        if len(body) != length or zlib.crc32(body, sequence & 0xFFFFFFFF) != crc:
            return None
        try:
            return _decoder.decode(body)
        except msgspec.MsgspecError:
            return None

    def write(self, record: Record) -> None:
        """Put a new record into the older slot. One write inside one page: there whole, or the other slot counts."""
        sequence = self._sequence + 1
        body = _encoder.encode(record)
        if len(body) > SLOT_BYTES - _HEAD.size:
            raise ValueError(f"fence record of {len(body)} bytes does not fit its slot")
        head = _HEAD.pack(_MAGIC, zlib.crc32(body, sequence & 0xFFFFFFFF), sequence, len(body))
        at = (sequence % 2) * SLOT_BYTES
        slot = head + body
        self._put(slot, at)
        raw = self._known_raw.ljust(2 * SLOT_BYTES, b"\0")
        self._known_raw = raw[:at] + slot + raw[at + len(slot) :]
        self._known, self._sequence = record, sequence
        self.newest = record

    def _put(self, data: bytes, at: int) -> None:
        try:
            self._machine.pwrite(self.fd, data, at)
        except OSError as exc:
            raise ResourceError(f"cannot write fence record {self.path}: {exc.strerror}") from exc

    def follow_path(self) -> None:
        """Make the file again if its path no longer names it (somebody cleaned the folder). Any thread: our descriptor
        keeps its number.
        """
        try:
            if os.stat(self._path_text).st_ino == self._inode:
                return
        except (FileNotFoundError, NotADirectoryError):
            pass  # made again below, or refused there
        fd = self._open()
        self._machine.turn_to(fd, self.fd)
        self._inode = os.fstat(self.fd).st_ino

    def _open(self) -> int:
        """Open or make the file, with the disk space that a beat and an intent will need."""
        try:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            fd = self._machine.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if os.fstat(fd).st_size < TOTAL_BYTES:
                self._machine.pwrite(fd, b"\0", TOTAL_BYTES - 1)
        except OSError as exc:
            raise ResourceError(f"cannot open fence record {self.path}: {exc.strerror}") from exc
        return fd

    def note_intent(self, intent: Intent) -> None:
        """Say what is about to be written. It counts until the next `write`, so it needs no clearing."""
        body = _INTENT.pack(self._sequence, intent.offset, intent.length, intent.crc32, intent.head)
        self._put(struct.pack("<I", zlib.crc32(body)) + body, INTENT_AT)

    def read_intent(self) -> Intent | None:
        """The intent that was noted after the record that `read` has just given, if any."""
        raw = os.pread(self.fd, 4 + _INTENT.size, INTENT_AT)
        if len(raw) < 4 + _INTENT.size or zlib.crc32(raw[4:]) != struct.unpack_from("<I", raw)[0]:
            return None
        sequence, offset, length, crc32, head = _INTENT.unpack_from(raw, 4)
        return Intent(offset, length, crc32, head[:length]) if sequence == self._sequence else None

    # ── beat and holder ──────────────────────────────────────────────────────────────────────────────────────────────

    def beat(self, nonce: str, count: int) -> None:
        """The owner's sign of life."""
        self._put(_BEAT.pack(bytes.fromhex(nonce), count), BEAT_AT)

    def read_beat(self) -> bytes:
        """24 opaque bytes: equal twice means that nobody beat in between."""
        return os.pread(self.fd, _BEAT.size, BEAT_AT)

    def note_progress(self, nonce: str, report: Report) -> None:
        """What the owner's turn was last heard of; goes with its beat."""
        told = [nonce, report.count, report.running_ms, report.still_ms, report.doing, report.name, report.doing_ms,
                report.limit_ms]  # fmt: skip
        body = msgspec.msgpack.encode(told)
        if len(body) <= PROGRESS_BYTES - _PROGRESS_HEAD.size:
            self._put(_PROGRESS_HEAD.pack(zlib.crc32(body), len(body)) + body, PROGRESS_AT)

    def note_holder(self) -> None:
        self._put(_PID.pack(os.getpid()), HOLDER_AT)

    def holder_pid(self) -> int | None:
        """Who took the write lock last, for messages."""
        raw = os.pread(self.fd, _PID.size, HOLDER_AT)
        return _PID.unpack(raw)[0] if len(raw) == _PID.size else None

    def close(self) -> None:
        self._machine.close(self.fd)


def read_report(path: Path, nonce: str) -> Report | None:
    """What the turn of this owner was last heard of, as of its last beat; None: nothing is known. Changes nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None  # the record may vanish at any time
    try:
        return _report_in(os.pread(fd, PROGRESS_BYTES, PROGRESS_AT), nonce)
    except OSError:
        return None
    finally:
        os.close(fd)


def _report_in(raw: bytes, nonce: str) -> Report | None:
    if len(raw) < _PROGRESS_HEAD.size:
        return None
    crc, length = _PROGRESS_HEAD.unpack_from(raw)
    body = raw[_PROGRESS_HEAD.size : _PROGRESS_HEAD.size + length]
    if not length or len(body) != length or zlib.crc32(body) != crc:
        return None
    try:
        of, count, running, still, doing, name, doing_ms, limit = _told_decoder.decode(body)
    except msgspec.MsgspecError:
        return None
    return Report(count, running, still, doing, name, doing_ms, limit) if of == nonce else None


_Told = tuple[str, int, int, int, Doing, str, int, int | None]
_told_decoder = msgspec.msgpack.Decoder(_Told)
