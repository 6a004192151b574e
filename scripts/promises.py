"""The page of promises: what Holdfast promises, and which tests and runs hold it to that.

A test says so with a mark, and a run that is no test with a constant in its module:

    @pytest.mark.promise("P3", "I1")
    async def test_…

    PROMISES_HELD = {"make sim": ("P1", "P3", "I9")}

Both are read from the source (`ast`), so that nothing has to be imported or run.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACES = ("tests", "scripts", "src/holdfast/testing", "src/holdfast/cli")

PROMISES = {
    "P1": "One owner. At any instant at most one turn may extend a conversation, across tasks, threads, processes and"
    " machines; a former owner that wakes up late cannot.",
    "P2": "One end. Every accepted input ends in exactly one state, which is never reopened; `holdfast why` tells how.",
    "P3": "Nothing acknowledged is lost. An accepted input and a final answer survive SIGKILL and power loss at any"
    " instruction.",
    "P4": "At most one unlabelled copy of an answer reaches the user; a send whose fate is unknown is looked for, sent"
    " again with a label, or reported.",
    "P5": "No false takeover. What Holdfast wrote itself is never mistaken for an intruder; reading never writes.",
    "P6": "No missed takeover. Whatever others did to a transcript is seen before anything is appended after it, and"
    " nothing that was there is damaged.",
    "P7": "Coordination is no model's failure. A lock, a takeover or a lost claim uses up no fallback, starts no"
    " cool-down and pins no model; a provider's error stays one, however it is wrapped.",
    "P8": "No silent pin. A model that failover chose is visible, has a reason and an end, and gives way by itself;"
    " a user's choice is exact.",
    "P9": "Recovery proves its effect and never touches a live owner.",
    "P10": "Cost does not grow with history: opening, appending and fencing cost the same at 10 KB and at 1 GB.",
}

INVARIANTS = {
    "I1": "An acknowledged entry is in the transcript exactly once, for ever.",
    "I2": "Every line parses, apart from one torn tail before it is repaired.",
    "I3": "At most one owner of a session can commit; a stale epoch never appends.",
    "I4": "Epochs in a file never go down.",
    "I5": "Each accepted message ends as answered, as ended with a recorded reason, or is waiting.",
    "I6": "For each delivery the world got at most one distinct content, which is the transcript's.",
    "I7": "Delivered implies durable.",
    "I8": "The order of a line of inputs is kept, and parents resolve.",
    "I9": "Once mishaps stop, everything is at rest within a bound.",
    "I10": "Restarting is idempotent: recovery that runs twice, or is killed and runs again, leads to the same.",
    "I11": "Histories are linearizable against epoch and log.",
    "I12": "No file outside the state directory, no secret in any output, memory and queues bounded.",
    "I13": "The suite finds every bug that is planted.",
}
NAMES = {**PROMISES, **INVARIANTS}


@dataclass(frozen=True, order=True)
class Holder:
    """A test (`name` is its function) or a run (`name` is its command), and the file it stands in."""

    path: str
    line: int
    name: str
    holds: tuple[str, ...]
    is_test: bool


def holders() -> list[Holder]:
    """All of them, in the order of files and lines."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PLACES],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = sorted(name for name in listed.stdout.decode().split("\0") if name.endswith(".py"))
    return [holder for name in names if (ROOT / name).exists() for holder in _in_file(ROOT / name, name)]


def _in_file(path: Path, name: str) -> Iterator[Holder]:
    text = path.read_text(encoding="utf-8")
    if "promise(" not in text and "PROMISES_HELD" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                    holds = tuple(ast.literal_eval(argument) for argument in mark.args)
                    yield Holder(name, node.lineno, node.name, holds, is_test=True)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROMISES_HELD":
            for command, holds in ast.literal_eval(node.value).items():
                yield Holder(name, node.lineno, command, tuple(holds), is_test=False)


def promises_page(drawn: str) -> str:
    """docs/promises.md."""
    found = holders()
    parts = [
        f"""# Promises, and what holds them

{drawn}

Ten promises (P) are made to users; thirteen invariants (I) are what has to be true inside for them to be kept. Below
each stand the tests and runs that fail if it does not hold. A test is marked with `@pytest.mark.promise("P3", "I1")`, a
run that is no test named in its module ([how](../CONTRIBUTING.md#promises)).

| | in words | tests | runs |
|---|---|---|---|
{chr(10).join(_row(name, found) for name in NAMES)}"""
    ]
    for name, words in NAMES.items():
        parts.append(f"## {name}\n\n{words}\n\n{_list_of(name, found)}")
    return "\n\n".join(parts) + "\n"


def _row(name: str, found: list[Holder]) -> str:
    mine = [holder for holder in found if name in holder.holds]
    tests = sum(holder.is_test for holder in mine)
    first = NAMES[name].split(". ")[0].split(": ")[0].split("; ")[0].rstrip(".")
    return f"| [{name}](#{name.lower()}) | {first} | {tests} | {len(mine) - tests} |"


def _list_of(name: str, found: list[Holder]) -> str:
    lines: list[str] = []
    for path, group in groupby((holder for holder in found if name in holder.holds), key=lambda one: one.path):
        inside = list(group)
        lines.append(f"- [{path}](../{path})")
        lines += [f"  - {_in_words(holder)}" for holder in inside]
    return "\n".join(lines)


def _in_words(holder: Holder) -> str:
    return holder.name.removeprefix("test_").replace("_", " ") if holder.is_test else f"`{holder.name}`"
