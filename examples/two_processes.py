"""Two programs talk into one session at the same time. Nothing is lost, nothing is interleaved, nobody polls.

    python examples/two_processes.py [STATE]

Each worker takes the session for one turn at a time, writes a question and an answer, and queues up again. At the end
the transcript is read back and counted.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import holdfast
import holdfast.sync
from holdfast.session.entries import MessageEntry

SESSION = "agent:main:main"
TURNS = 20


async def work(state: Path, name: str) -> None:
    """What each of the two processes does."""
    async with holdfast.open(state) as hf:
        for number in range(TURNS):
            async with hf.turn(SESSION, wait_s=30) as turn:
                await turn.append(holdfast.user(f"{name}: question {number}"))
                async with turn.prompt_window():
                    await asyncio.sleep(0.005)  # the model
                await turn.append(holdfast.assistant(f"{name}: answer {number}", model="example/any"))


def main(state: Path) -> int:
    workers = [subprocess.Popen([sys.executable, __file__, str(state), name]) for name in ("ada", "bob")]
    failed = [worker.args for worker in workers if worker.wait() != 0]
    with holdfast.sync.open(state) as hf:
        entries = [entry for entry in hf.session(SESSION).entries() if isinstance(entry, MessageEntry)]
    said = [entry.message["content"][0]["text"] for entry in entries]
    pairs = list(zip(said[::2], said[1::2], strict=True))
    torn = [pair for pair in pairs if pair[0].replace("question", "answer") != pair[1]]
    changes = sum(before[0][:3] != after[0][:3] for before, after in pairwise(pairs))
    print(f"{len(pairs)} of {2 * TURNS} turns are in the transcript; {len(torn)} of them were torn apart")
    print(f"the session changed hands {changes} times")
    return 1 if failed or torn or len(pairs) != 2 * TURNS else 0


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(work(Path(sys.argv[1]), sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else scratch)))
