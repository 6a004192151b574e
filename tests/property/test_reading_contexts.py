"""Reading a transcript from its end shows the model what reading all of it shows."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.context.plan import plan
from holdfast.session import entries
from holdfast.session.branch import active_branch
from holdfast.session.entries import Entry, SessionHeader, encode_line, stamped
from holdfast.store.embedded import scan

AT = "2026-05-22T10:00:00.000Z"
STEPS = st.lists(
    st.tuples(st.sampled_from(["user", "answer", "compact", "compact all", "reset", "note", "torn"]),
              st.integers(1, 60_000), st.integers(0, 30)),
    max_size=25,
)  # fmt: skip


def write(path: Path, steps: list[tuple[str, int, int]]) -> None:
    header = SessionHeader(version=3, id="s", timestamp=AT, cwd="/")
    lines, ids = [encode_line(header)], list[str]()
    torn = b""
    for number, (kind, size, back) in enumerate(steps):
        parent = ids[-1] if ids else None
        id = f"e{number}"
        entry: Entry = entries.user("q" * size)
        if kind == "answer":
            entry = entries.assistant("a" * size, model="p/m")
        elif kind.startswith("compact"):
            kept = id if kind == "compact all" or not ids else ids[max(0, len(ids) - 1 - back)]
            entry = entries.compaction("what was before", kept)
        elif kind == "note":
            entry = entries.custom("a note", {"n": number})
        elif kind == "torn":
            torn = b'{"type":"message"'
            continue
        parent = None if kind == "reset" else parent
        lines.append(encode_line(stamped(entry, id=id, parent=parent, timestamp=AT, origin=None)))
        ids.append(id)
    path.write_bytes(b"".join(lines) + torn)


@settings(deadline=None)
@given(STEPS, st.booleans())
def test_it_is_the_same_context_whatever_is_left_unread(steps: list[tuple[str, int, int]], all_of_it: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "transcript.jsonl"
        write(path, steps)
        whole = scan.read_file(path, None)
        read = scan.read_context(path, 1 << 30, 0 if all_of_it else None)
        assert plan(active_branch(read).lines).messages == plan(active_branch(whole).lines).messages
        if all_of_it:
            assert [line.raw for line in read] == [line.raw for line in whole]


def test_what_a_compaction_covers_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    write(path, [("user", 50_000, 0)] * 40 + [("user", 10, 0), ("answer", 10, 0), ("compact", 1, 1)])
    assert len(scan.read_context(path, 1 << 30)) < 5
    assert len(scan.read_file(path, None)) == 44


def test_no_more_is_read_than_there_may_be(tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    write(path, [("user", 50_000, 0)] * 40)
    assert 4 < len(scan.read_context(path, 300_000)) < 12
