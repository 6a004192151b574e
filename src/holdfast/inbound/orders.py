"""What is asked of timers from outside their loop: by commands, by webhooks, in any process, with or without a gateway.

Everything here is a row in the ledger when it returns; whichever process runs the timers looks within a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from holdfast.clock import epoch_ms
from holdfast.errors import InputConflictError, InputError, ResourceError
from holdfast.ids import nonce
from holdfast.inbound import cron, heartbeat
from holdfast.inbound.cron import JobDefinition
from holdfast.inbound.event import InboundEvent, LaneFull
from holdfast.inbound.timer import CRON, HEARTBEAT, Timer, TimerRun, Wake, run_id
from holdfast.kernel import Holdfast

TRIES = 5
WAKE_TEXT_CHARS_MAX = 100_000


async def accept_once(hf: Holdfast, event: InboundEvent) -> str | None:
    """Through the one door, under the event's key. The input's id, also of one that was accepted before, by whoever and
    with whatever body; None: there is no room now.
    """
    try:
        admission = await hf.accept(event)
    except InputConflictError:
        return await hf.store.input_by_key(event.source, event.account, event.key or "")
    return None if isinstance(admission, LaneFull) else admission.input_id


async def add_job(hf: Holdfast, job: JobDefinition) -> Timer:
    """A new cron job.

    Raises:
        InputError: with every fault of the definition; or there is one of that name.
    """
    made = await hf.store.change_timer(None, cron.new_timer(job, "cli", epoch_ms(hf.clock.now())), durable=True)
    if made is None:
        raise InputError(f"there is a cron job {job.name!r} already; `holdfast cron remove {job.name}` first")
    return made


async def run_now(hf: Holdfast, timer_id: str) -> TimerRun:
    """Run a cron job now, whatever its schedule and state say.

    Raises:
        InputError: no such job. ResourceError: no room in its lane. As `Holdfast.accept`.
    """
    by = f"manual:{nonce()}"
    now_ms = epoch_ms(hf.clock.now())
    input_id = await accept_once(hf, cron.event_of(await find(hf, timer_id), now_ms, 1, by))
    if input_id is None:
        raise ResourceError(f"the lane {cron.LANE!r} is full; try again later")
    run = TimerRun(run_id(timer_id, now_ms, 1, by), timer_id, now_ms, 1, "manual", "running", now_ms, None, input_id)
    for _ in range(TRIES):
        timer = await find(hf, timer_id)
        if await hf.store.change_timer(timer, timer, began=run, durable=True) is not None:
            return run
    raise ResourceError(f"{timer_id} changes too quickly; input {input_id} does its work")


async def pause(hf: Holdfast, timer_id: str) -> Timer:
    """Let it fire no more until it is resumed; what runs goes on."""
    return await change(hf, timer_id, lambda seen: replace(seen, state="paused"))


async def resume(hf: Holdfast, timer_id: str) -> Timer:
    """Let it fire again, from its next time on, whatever had stopped it."""
    now_ms = epoch_ms(hf.clock.now())
    return await change(
        hf, timer_id, lambda seen: cron.resumed(seen, now_ms) if seen.kind == CRON else replace(seen, state="active")
    )


async def find(hf: Holdfast, timer_id: str) -> Timer:
    """The timer of this id.

    Raises:
        InputError: there is none.
    """
    for timer in await hf.store.timers():
        if timer.id == timer_id:
            return timer
    kind, _, name = timer_id.partition(":")
    what = "cron job" if kind == CRON else "heartbeat of agent"
    raise InputError(f"no {what} {name!r}; `holdfast {kind} {'list' if kind == CRON else 'status'}` shows them")


async def change(hf: Holdfast, timer_id: str, make: Callable[[Timer], Timer | None]) -> Timer:
    """Change (or remove, by None) a timer by what it is now; durable.

    Raises:
        InputError: there is none. ResourceError: it changes too quickly.
    """
    for _ in range(TRIES):
        seen = await find(hf, timer_id)
        done = await hf.store.change_timer(seen, make(seen), durable=True)
        if done is not None:
            return done
    raise ResourceError(f"{timer_id} changes too quickly; try again")


async def wake(
    hf: Holdfast, agent: str, *, reason: str, text: str = "", mode: str = "now", key: str | None = None
) -> bool:
    """Ask for a heartbeat, durably: whichever process looks first runs it. `key` names the wake; the same again is the
    same. Returns False for one that waits already.

    Raises:
        InputError: the agent has no heartbeat, or the text is too long.
    """
    if len(text) > WAKE_TEXT_CHARS_MAX:
        raise InputError(f"a wake's text of {len(text)} characters is over the limit of {WAKE_TEXT_CHARS_MAX}")
    timer = await find(hf, f"{HEARTBEAT}:{agent}")
    at_ms = epoch_ms(hf.clock.now())
    return await hf.store.add_wake(
        Wake(
            key or nonce(), timer.id, heartbeat.normal_reason(reason), text, "next" if mode == "next" else "now", at_ms
        )
    )
