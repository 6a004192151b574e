"""Mending a transcript line by line: what other readers need of it, without losing a byte of what was said.

The rules, for a file that its owner may write anew (`store/embedded/mending.py` keeps the original and writes):

- The header says version 3; entries of version 1 get the ids that readers gave them all along, and parents; the role
  `hookMessage` becomes `custom`.
- A line that cannot be read (torn, not JSON, without an id, a second header) becomes a `custom` line in its place, with
  its bytes. Blank lines are left out.
- Of two lines with one id the first keeps it, as when reading; the later one gets an id of its own and stays where its
  parent says. Whoever names the id still means the first: a later line cannot replace what was already answered upon.
- A parent that does not stand before its child is replaced by the leaf at that place.

Everything else stays as it is, to the byte: fields are changed in place where that gives exactly the same object, and
the line is encoded anew only where it does not. Unpaired calls, unsigned thinking and users' messages without an answer
are not touched: what the model may not see is left out when its context is planned (`context/`).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.ids import derived_id
from holdfast.session.branch import id_in_version_1, leaf_after
from holdfast.session.entries import FORMAT_VERSION, CustomEntry, custom
from holdfast.session.lines import Line, load_object, read_line

SET_ASIDE_TYPE = "holdfast:set_aside"
"""customType of a line that holds the bytes of one that could not be read."""
REPAIR_TYPE = "holdfast:repair"
"""customType of the line that ends a repair: what was done, and where the original is."""
TEXT_BYTES_MAX = 1024 * 1024
BYTES_MAX = 8 * 1024 * 1024
"""Of an unreadable line longer than this the bytes are in the original file only; a line holds 16 MiB."""

Stamp = Callable[[CustomEntry, str, str | None], bytes]
"""Makes a line of an entry, its id and its parent."""


class Mender:
    """Takes the lines of one file in order, without their newlines, and gives what is to stand there.

    Attributes:
        findings: what was wrong, and how often. Empty: the file may stay as it is.
        leaf: the leaf of what has been given so far.
    """

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._version = FORMAT_VERSION
        self._taken = 0
        self._by_position: list[str | None] = []  # of a version 1 file: what a compaction's index means
        self._ids: set[str] = set()
        self.leaf: str | None = None
        self.findings: dict[str, int] = {}

    def take(self, raw: bytes) -> bytes:
        """The line that is to stand for this one, with its newline; empty for one that is left out."""
        self._taken += 1
        line = read_line(raw, version=self._version)
        if self._taken == 1 and line.kind == "header":
            return self._header(raw, line)
        if line.kind == "blank":
            self._note("blank lines")
            return b""
        if self._version == 1:
            line = self._placed(line)
        if line.kind == "header" or line.id is None:
            return self._set_aside(raw, line)
        changed = self._entry(raw, line)
        return changed + b"\n"

    def told(self) -> list[str]:
        """The findings in words."""
        return [what if count == 1 else f"{what} ({count})" for what, count in self.findings.items()]

    def _note(self, what: str) -> None:
        self.findings[what] = self.findings.get(what, 0) + 1

    def _header(self, raw: bytes, line: Line) -> bytes:
        self._version = line.version or FORMAT_VERSION
        self._by_position.append(None)
        if self._version == FORMAT_VERSION:
            return raw + b"\n"
        self._note(f"session format {self._version}")
        return with_fields(raw, {"version": FORMAT_VERSION}) + b"\n"

    def _placed(self, line: Line) -> Line:
        """A line of version 1 with the id that follows from its place."""
        if line.type is None and line.id is None:
            return line
        placed = id_in_version_1(line, len(self._by_position))
        self._by_position.append(placed.id)
        return placed

    def _set_aside(self, raw: bytes, line: Line) -> bytes:
        why = "a second header" if line.kind == "header" else line.reason or "no id"
        self._note("a line that cannot be read")
        data: dict[str, Any] = {"reason": why, "bytes": len(raw)}
        try:
            text = raw.decode("utf-8") if len(raw) <= TEXT_BYTES_MAX else None
        except UnicodeDecodeError:
            text = None
        if text is not None:
            data["text"] = text
        elif len(raw) <= BYTES_MAX:
            data["base64"] = base64.b64encode(raw).decode()
        entry_id = derived_id("set_aside", self._taken, raw.hex())
        made = self._stamp(custom(SET_ASIDE_TYPE, data), entry_id, self.leaf)
        self._ids.add(entry_id)
        self.leaf = entry_id
        return made

    def _entry(self, raw: bytes, line: Line) -> bytes:
        assert line.id is not None
        changes: dict[str, Any] = {}
        again = line.id in self._ids
        if again:
            self._note("an id that was used before")
            changes["id"] = derived_id("again", line.id, self._taken)
        elif self._version == 1:
            changes["id"] = line.id
        if not line.has_parent:
            changes["parentId"] = self.leaf
        elif line.parent is not None and line.parent not in self._ids:
            self._note("a parent that does not stand before its child")
            changes["parentId"] = self.leaf
        if self._version == 1 and line.first_kept is None:
            kept = self._at(line.first_kept_index)
            if kept is not None:
                changes["firstKeptEntryId"] = kept
        out = raw if self._is_plain(line, changes) else with_fields(raw, changes)
        if self._version < FORMAT_VERSION and line.message_role == "hookMessage":
            out = with_role(out, "custom")
        self._ids.add(changes.get("id", line.id))
        if not again:
            self.leaf = leaf_after(self.leaf, line)
        return out

    def _is_plain(self, line: Line, changes: dict[str, Any]) -> bool:
        """Whether nothing has to be written. An absent parent alone is read as we read it; it stays absent."""
        return not changes or (changes.keys() == {"parentId"} and not line.has_parent and not self.findings)

    def _at(self, position: int | None) -> str | None:
        known = position is not None and 0 <= position < len(self._by_position)
        return self._by_position[position] if known and position is not None else None


def find_faults(raws: Iterable[bytes]) -> list[str]:
    """What a mender would note of these lines of a file, from its start (their newlines may be left on), in words."""
    mender = Mender(lambda _entry, _id, _parent: b"")
    for raw in raws:
        mender.take(raw.removesuffix(b"\n"))
    return mender.told()


def with_fields(raw: bytes, changes: dict[str, Any]) -> bytes:
    """A JSON object on one line with some of its top-level fields set to texts, numbers or null; all else untouched."""
    before = load_object(raw)
    wanted = {**before, **changes}
    made = raw
    for name, value in changes.items():
        encoded = json.dumps(value).encode()
        if name in before:
            field = re.compile(rb'("%s"\s*:\s*)(?:"(?:[^"\\]|\\.)*"|null|-?\d+)' % name.encode())
            made = field.sub(lambda match, new=encoded: match[1] + new, made, count=1)
        else:
            made = made.replace(b"{", b'{"%s":%s,' % (name.encode(), encoded), 1)
    return made if _says(made, wanted) else _encoded(wanted)


def with_role(raw: bytes, role: str) -> bytes:
    """A `message` line whose message has another role."""
    value = load_object(raw)
    wanted = {**value, "message": {**value["message"], "role": role}}
    new = json.dumps(role).encode()
    made = re.sub(rb'("role"\s*:\s*)"(?:[^"\\]|\\.)*"', lambda match: match[1] + new, raw, count=1)
    return made if _says(made, wanted) else _encoded(wanted)


def _says(raw: bytes, wanted: dict[str, Any]) -> bool:
    try:
        return load_object(raw) == wanted
    except (ValueError, RecursionError):
        return False


def _encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()
