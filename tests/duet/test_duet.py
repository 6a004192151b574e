"""The duet: Holdfast and the real OpenClaw write to one transcript at once (`make duet` installs it below .duet).

Its own functions append and judge, in a process of Node 22; ours are the usual ones, in a process whose command line
names openclaw. What is counted goes to docs/evidence/openclaw.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FOLDER, NODE = os.environ.get("HOLDFAST_OPENCLAW", ""), os.environ.get("HOLDFAST_NODE", "")
SECONDS = float(os.environ.get("HOLDFAST_DUET_S", "60"))
HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.skipif(not (FOLDER and NODE), reason="OpenClaw is not here; `make duet` installs it"),
    pytest.mark.timeout(SECONDS + 240),
]


@contextmanager
def process(*command: str | Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **env},
    )  # fmt: skip
    try:
        yield running
    finally:
        running.kill()
        running.wait()
        for pipe in (running.stdin, running.stdout):
            assert pipe is not None
            pipe.close()


def hears(running: subprocess.Popen[str]) -> dict[str, Any]:
    assert running.stdout is not None
    line = running.stdout.readline()
    assert line, f"it has ended with {running.wait()}"
    return json.loads(line)


def tell(running: subprocess.Popen[str], word: str) -> None:
    assert running.stdin is not None
    running.stdin.write(f"{word}\n")
    running.stdin.flush()


def ours(state: Path, act: str) -> Any:
    return process(sys.executable, "-X", "openclaw", HERE / "holdfast_side.py", act, state, str(SECONDS))


def theirs(tmp_path: Path, act: str, transcript: str) -> Any:
    home = tmp_path / "openclaw"
    return process(NODE, HERE / "openclaw.mjs", FOLDER, act, transcript, str(SECONDS),
                   OPENCLAW_STATE_DIR=str(home), HOME=str(tmp_path))  # fmt: skip


async def told(running: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Everything until it says that it is done."""
    events: list[dict[str, Any]] = []
    while not events or events[-1]["event"] != "done":
        events.append(await asyncio.to_thread(hears, running))
    return events


async def test_both_append_to_one_session_and_no_line_is_torn_or_lost(tmp_path: Path) -> None:
    with ours(tmp_path / "state", "append") as mine:
        begun = await asyncio.to_thread(hears, mine)
        with theirs(tmp_path, "append", begun["transcript"]) as other:
            assert (await asyncio.to_thread(hears, other))["event"] == "ready"
            tell(mine, "go")
            tell(other, "go")
            our_events, their_events = await asyncio.gather(told(mine), told(other))
    raws = Path(begun["transcript"]).read_bytes().split(b"\n")
    assert raws.pop() == b""
    lines = [json.loads(raw) for raw in raws]  # none is torn, none is written into another
    count = Counter(one.get("id") for one in lines)
    wrote = {one["id"] for one in their_events if one["event"] == "wrote"}
    written = {entry for one in our_events if one["event"] == "wrote" for entry in one["ids"]}
    assert [entry for entry in wrote | written if count[entry] != 1] == []
    kept = sum(one["event"] == "kept" for one in our_events)
    report = {
        "seconds": SECONDS, "lines": len(lines), "by OpenClaw": len(wrote), "by Holdfast": len(written),
        "turns answered": sum(one["event"] == "wrote" and one["what"] == "turn" for one in our_events),
        "turns that met its user message, answer kept": kept,
        "refused to metadata": sum(one["event"] == "refused" for one in our_events),
    }  # fmt: skip
    print("\nduet:", json.dumps(report))
    assert wrote
    assert written
    assert not Path(f"{begun['transcript']}.lock").exists()


async def test_its_controller_takes_our_mirrors_for_benign_and_our_conversation_for_a_takeover(tmp_path: Path) -> None:
    with ours(tmp_path / "state", "obey") as mine:
        begun = await asyncio.to_thread(hears, mine)
        with theirs(tmp_path, "controlled", begun["transcript"]) as other:
            assert (await asyncio.to_thread(hears, other))["event"] == "ready"

            async def after(what: str) -> dict[str, Any]:
                """What its controller says once we have written that within its prompt window."""
                tell(mine, what)
                assert (await asyncio.to_thread(hears, mine))["event"] == "wrote"
                tell(other, f"after {what}")
                return await asyncio.to_thread(hears, other)

            for _ in range(25):
                assert (await after("mirror"))["event"] == "goes on"
            found = await after("turn")
            assert (found["event"], found["name"]) == ("stopped", "EmbeddedAttemptSessionTakeoverError")
            assert "session file changed while embedded prompt lock was released" in found["message"]
            assert (await after("mirror"))["event"] == "goes on"
            assert (await after("label"))["event"] == "stopped"
            tell(other, "end")
            tell(mine, "end")


async def test_its_session_manager_reads_our_transcript_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    with ours(tmp_path / "state", "obey") as mine:
        begun = await asyncio.to_thread(hears, mine)
        for order in ("turn", "mirror", "label"):
            tell(mine, order)
            assert (await asyncio.to_thread(hears, mine))["event"] == "wrote"
        before = Path(begun["transcript"]).read_bytes()
        with theirs(tmp_path, "read", begun["transcript"]) as other:
            said = await asyncio.to_thread(hears, other)
            other.wait(60)
        assert said == {"event": "read", "entries": before.count(b"\n") - 1, "messages": 5}
        assert Path(begun["transcript"]).read_bytes() == before
        tell(mine, "end")


async def test_our_turn_goes_on_past_its_mirrors(tmp_path: Path) -> None:
    """The other way round: what its controller writes in our prompt window is adopted."""
    with ours(tmp_path / "state", "window") as mine:
        begun = await asyncio.to_thread(hears, mine)
        with theirs(tmp_path, "controlled", begun["transcript"]) as other:
            assert (await asyncio.to_thread(hears, other))["event"] == "ready"
            for n in range(10):
                tell(mine, "open")
                assert (await asyncio.to_thread(hears, mine))["event"] == "open"
                tell(other, f"in window {n}")
                said = await asyncio.to_thread(hears, other)
                tell(mine, "close")
                closed = await asyncio.to_thread(hears, mine)
                assert closed["event"] == "closed", closed
                assert closed["verdict"] == ("adopted" if said["event"] == "goes on" else "unchanged")
            tell(other, "end")
            tell(mine, "end")
