"""What a fence case says, as steps that can be taken: reading only, nothing is run here.

The cases speak of controllers of one process that share a lock. In Holdfast a controller is a turn; what a second one
writes while the first is in its prompt window is either recorded metadata (the only thing that may be written without
the turn) or somebody else's bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from tests.cases.given import Case

Writer = Literal["owner", "outsider", "metadata"]
BASE_ANSWER = "<base answer>"


class NotUnderstoodError(Exception):
    """The case says something this reader has no word for."""


@dataclass(frozen=True)
class Step:
    """Something the program under test does: "claim", "enter", "leave", "end", "append" or "mutate"."""

    do: str


@dataclass(frozen=True)
class Act:
    """One change: who makes it, what it is, and the record or content it is made with.

    `op`: "append", "write" (the whole file anew, in place), "times", "truncate", "delete", "replace", "header" (only
    what the claim itself has written) or "checked append" (leave the window with `verdict`, append, enter another).
    """

    writer: Writer
    op: str
    record: dict[str, Any] | None = None
    content: str = ""
    throws: bool = False
    verdict: str | None = None


@dataclass(frozen=True)
class Script:
    """A case in our words. `before`: bytes of the file that is there first, None for none."""

    before: bytes | None
    base_exchange: bool
    steps: list[Step]
    acts: list[Act]
    bystander: bool
    accepted: frozenset[str]


def read_script(case: Case) -> Script:
    """Raises NotUnderstoodError."""
    acts = read_mutation(case.data.get("mutation", {"op": "none"}))
    steps = [step for text in case.setup.get("steps", []) for step in read_steps(text)]
    if Step("mutate") not in steps:
        steps.append(Step("mutate"))
    expected = case.expected
    if "verdict" not in expected:
        raise NotUnderstoodError("no verdict is expected")
    accepted = {expected["verdict"], *expected.get("accept", [])}
    if [act.op for act in acts] == ["header"]:
        accepted.add("unchanged")  # our header is there from the claim on, before the window is entered
    return Script(
        before=read_file(case.setup.get("file")),
        base_exchange=BASE_ANSWER in str(case.data),
        steps=steps,
        acts=acts,
        bystander="second controller" in case.title,
        accepted=frozenset(accepted),
    )


def read_file(file: Any) -> bytes | None:
    if file is None:
        return None
    if file == "empty":
        return b""
    if isinstance(file, list) and all(isinstance(line, str) for line in file):
        return "".join(in_full(line) + "\n" for line in file).encode()
    raise NotUnderstoodError(f"file {file!r}")


def in_full(line: str) -> str:
    """The cases write a header as its type alone; files of today have a version, or they are not extended at all."""
    return re.sub(r'^\{"type":"(sessio\w)"\}$', r'{"type":"\1","version":3,"id":"given","cwd":"/"}', line)


STEPS: list[tuple[str, list[str]]] = [
    (r"\(mutation\)", ["mutate"]),
    (r"create( controller)?( \(takes lock\))?", ["claim"]),
    (r"release( for prompt)?", ["enter"]),
    (r"reacquire( after prompt)?", ["leave"]),
    (r"dispose", ["end"]),
    (r"own (locked )?appends?", ["append"]),
    (r"release held lock for abort( \(no prompt release\))?", []),  # nothing is held between two appends
]


def read_steps(text: str) -> list[Step]:
    """The steps of one line such as "first controller: create, release, dispose"."""
    found: list[Step] = []
    for part in re.sub(r"^(first|second) controller: ", "", text).split(", "):
        words = next((do for pattern, do in STEPS if re.fullmatch(pattern, part)), None)
        if words is None:
            raise NotUnderstoodError(f"step {part!r}")
        found += [Step(do) for do in words]
    return found


def read_mutation(mutation: dict[str, Any]) -> list[Act]:
    op, by = mutation["op"], mutation.get("by", "")
    match op:
        case "none":
            return []
        case "append":
            records = mutation["records"]
            throws = "throws" in by
            return [
                Act(writer, "append", record, throws=throws)
                for writer, record in zip(writers(by, records), records, strict=True)
            ]
        case "sequence":
            return [act for item in mutation["items"] for act in read_mutation(item)]
        case "own-write":
            record = {"type": "message", "id": mutation["id"]}
            return [Act("owner", "checked append", record, verdict=mutation.get("verdict"))]
        case "stat-drift":
            return [Act("outsider", "times")]
        case "rewrite":
            return [Act("outsider", "write", content=in_full(mutation["content"]) + "\n")]
        case "create" if mutation["records"] == ["session header"] and by.startswith("own"):
            return [Act("owner", "header")]
        case "create+rewrite" | "create":
            return [Act("outsider", "write", {"lines": mutation["records"]})]
        case "truncate" | "delete" | "replace":
            return [Act("outsider", op)]
        case _:
            raise NotUnderstoodError(f"mutation {op!r}")


WRITERS: list[tuple[str, tuple[Writer, Writer]]] = [  # of the first record and of the others
    (r"unowned writer, then (a )?(second|other) controller", ("outsider", "metadata")),
    (r"unowned writer", ("outsider", "outsider")),
    (r"own .*|.* own session manager", ("owner", "owner")),
    (r"(second|other) controller, published", ("metadata", "metadata")),
    # Bytes that nobody recorded, whichever process they come from:
    (r"(second|other) controller(, broad locked callback)?", ("outsider", "outsider")),
]


def writers(by: str, records: list[dict[str, Any]]) -> list[Writer]:
    """Who writes each record, by the words of the case."""
    if declared := re.fullmatch(r"publication declares only (\S+)", by):
        return [_declared(record, declared[1]) for record in records]
    first, rest = next((who for pattern, who in WRITERS if re.fullmatch(pattern, by)), (None, None))
    if first is None or rest is None:
        raise NotUnderstoodError(f"written by {by!r}")
    return [rest if index else first for index in range(len(records))]


def _declared(record: dict[str, Any], name: str) -> Writer:
    return "owner" if record.get("id") == name else "outsider"
