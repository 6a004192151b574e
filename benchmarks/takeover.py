"""How long a session stands still when the process that owns it is killed.

A chain of processes: one holds the session's turn, the next waits for it; the holder gets SIGKILL, the waiter gets the
turn and is the next to be killed. Measured is from just before the signal is sent to the moment the waiter owns the
turn. Of that the system itself takes its share (`kill_to_death`: until its parent sees the process gone).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import holdfast
from benchmarks.measure import FULL, Goal, Report, hear, listen, percentiles, run_with, say, scratch, start_worker

SESSION = "agent:main:main"
KILLS = 100 if FULL else 20
SETTLE_S = 0.1  # for the waiter to stand in line; it says so just before


async def hold(state: Path) -> None:
    """Wait for the turn, tell when it is ours, keep it until we are killed."""
    async with holdfast.open(state) as hf:
        say("waiting")
        async with hf.turn(SESSION, wait_s=600) as turn:
            say(time.monotonic())
            await turn.append(holdfast.user("mine"))
            await asyncio.to_thread(listen)


async def kill_one_after_the_other(state: Path) -> dict[str, list[float]]:
    to_claim: list[float] = []
    to_death: list[float] = []
    holder = await start_worker("takeover", str(state))
    assert await hear(holder) == "waiting"
    await hear(holder)
    for _ in range(KILLS):
        waiter = await start_worker("takeover", str(state))
        assert await hear(waiter) == "waiting"
        await asyncio.sleep(SETTLE_S)
        killed_at = time.monotonic()  # one clock for all processes of a machine
        os.kill(holder.pid, signal.SIGKILL)
        claimed_at, died_at = await asyncio.gather(hear(waiter), time_of_death(holder))
        to_claim.append(claimed_at - killed_at)
        to_death.append(died_at - killed_at)
        holder = waiter
    os.kill(holder.pid, signal.SIGKILL)
    await holder.wait()
    return {"kill_to_claim": to_claim, "kill_to_death": to_death}


async def time_of_death(process: asyncio.subprocess.Process) -> float:
    await process.wait()
    return time.monotonic()


def main() -> None:
    report = Report("takeover")
    with scratch() as folder:
        found = run_with(lambda: kill_one_after_the_other(folder / "state"))
        report.figures = {name: percentiles(seconds) for name, seconds in found.items()}
        to_claim_ms = report.figures["kill_to_claim"]["p50_us"] / 1000
        report.goals = [Goal("SIGKILL to the next claim, median", to_claim_ms, "ms", at_most=5.0)]
        report.print(folder)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        asyncio.run(hold(Path(sys.argv[1])))
    else:
        main()
