"""Random histories of a session, turn by turn, as a runner writes them and others disturb them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from holdfast.context.plan import HISTORY_TYPE
from holdfast.ids import input_line_id
from holdfast.session import entries
from holdfast.session.entries import Entry, MessageEntry, Origin, encode_line, stamped
from holdfast.session.lines import Line, read_line

WORDS = st.sampled_from(["", "hello", "ü" * 40, "long " * 1_200])
DISTURBED = st.sampled_from(["mirror", "label", "note", "audit", "image", "compaction", "refused", "reset", "rewrite"])
STEP = st.sampled_from(["call", "call twice", "call and think", "no result", "failed"])
TURN = st.fixed_dictionaries(
    {
        "before": st.lists(DISTURBED, max_size=2),
        "said": WORDS, "steps": st.lists(STEP, max_size=2), "steered": st.booleans(), "answer": WORDS,
        "pause_s": st.sampled_from([1, 1, 1, 400]),
        "provider": st.sampled_from(["anthropic", "openai"]),
    }
)  # fmt: skip
HISTORY = st.lists(TURN, min_size=1, max_size=6)


@dataclass
class History:
    """The active branch, and where its next line comes."""

    lines: list[Line] = field(default_factory=list)
    at_ms: int = 1_700_000_000_000
    count: int = 0

    def add(self, entry: Entry, *, id: str | None = None, turn: str = "other", inputs: tuple[str, ...] = ()) -> str:
        self.count += 1
        self.at_ms += 1_000
        id = id or f"e{self.count}"
        parent = self.lines[-1].id if self.lines else None
        if isinstance(entry, MessageEntry):
            entry = MessageEntry(message={**entry.message, "timestamp": self.at_ms}, visibility=entry.visibility)
        origin = Origin("store", turn, 1, "main", "turn", inputs)
        at = "2026-05-22T10:00:00.000Z"
        line = read_line(encode_line(stamped(entry, id=id, parent=parent, timestamp=at, origin=origin)).rstrip(b"\n"))
        assert line.kind == "entry"
        self.lines.append(line)
        return id

    def disturb(self, how: str) -> None:
        """What others, or the session's keeper, write between two turns."""
        match how:
            case "mirror":
                self.add(entries.mirror("delivered"))
            case "label":
                self.add(entries.label("e1", "here"))
            case "note":
                self.add(entries.custom_message("note", "by a program"))
            case "audit":
                self.add(entries.user("not for you", visibility="audit"))
            case "image":
                self.add(entries.user([{"type": "image", "data": "QUJD", "mimeType": "image/png"}]))
            case "compaction":
                kept = self.lines[-1].id if self.lines else None
                self.add(entries.compaction(f"summary {self.count}", kept or "none"))
            case "refused":
                self.add(entries.custom(HISTORY_TYPE, {"why": "thinking"}))
            case "reset":
                self.lines.clear()
            case _:
                self.rewrite()

    def rewrite(self) -> None:
        """Somebody has put another line in the place of one, under its id."""
        for at, line in enumerate(self.lines):
            if b"hello" in line.raw:
                self.lines[at] = read_line(line.raw.replace(b"hello", b"other"))
                return

    def begin(self, turn: dict[str, Any], number: int) -> None:
        for how in turn["before"]:
            self.disturb(how)
        self.at_ms += 1_000 * turn["pause_s"]
        self.own(number, entries.user(f"{number}: {turn['said']}"), id=input_line_id(f"in_{number}"))

    def own(self, number: int, entry: Entry, *, id: str | None = None, of: str | None = None) -> None:
        self.add(entry, id=id, turn=f"t{number}", inputs=(of or f"in_{number}",))

    def step(self, number: int, how: str, model: str) -> None:
        """One answer that calls tools, and their results."""
        ids = [f"c{self.count}", f"d{self.count}"] if how == "call twice" else [f"c{self.count}"]
        parts: list[dict[str, Any]] = [
            {"type": "toolCall", "id": id, "name": "look", "arguments": {"at": self.count}} for id in ids
        ]
        if how == "call and think":
            parts.insert(0, {"type": "thinking", "thinking": "hm", "thinkingSignature": "signed"})
        self.own(number, entries.assistant(parts, model=model, stop_reason="error" if how == "failed" else "toolUse"))
        for id in ids if how not in ("no result", "failed") else []:
            self.own(number, entries.tool_result(id, "look", f"found {'x' * 5_000}"))

    def steer(self, number: int) -> str:
        """Another input is taken into the turn."""
        self.own(number, entries.user("and this"), id=input_line_id(f"in_{number}s"), of=f"in_{number}s")
        return f"in_{number}s"
