"""One run: a seed becomes people, processes and faults; then everything has to come to rest and is checked."""

from __future__ import annotations

import gc
import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from holdfast.channel.channel import ChannelTraits
from holdfast.inbound import orders
from holdfast.kernel import Holdfast
from holdfast.testing.simulation.checking import effects_in, find_broken, transcripts_in, unreadable
from holdfast.testing.simulation.checking_ways import effects_of
from holdfast.testing.simulation.disk import LEDGER
from holdfast.testing.simulation.ground import Ground
from holdfast.testing.simulation.machine import TROUBLES, SharedHardware
from holdfast.testing.simulation.outsider import Outsider
from holdfast.testing.simulation.people import LONGEST_REQUEST_S, Person, Said, Seen, Sender, SimModel, tools
from holdfast.testing.simulation.platform import SimChannel
from holdfast.testing.simulation.process import Parts, SimProcess
from holdfast.testing.simulation.rest import load_rest
from holdfast.testing.simulation.scheduler import DeadError, Scheduler, StuckError
from holdfast.testing.simulation.ways import PADDING, Ways, draw

MAIN = "agent:main:main"
REST_S = 700.0
"""Virtual seconds after the last fault within which everything must have come to rest: a delivery that has been tried
four times in vain waits for 600 s, a beat lapses after 3."""

HARM = (
    *["kill planned"] * 4, "kill all planned", *["kill"] * 2, "kill all", *["stop"] * 3,
    *["power loss"] * 4, *["disk"] * 3, *["edit"] * 4,
    "clock", "orderly end", "redelivery",
)  # fmt: skip
"""What the nemesis draws from."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run. `broken` is empty if every promise held."""

    seed: int
    broken: tuple[str, ...]
    digest: str
    steps: int
    virtual_s: float
    counts: dict[str, int] = field(default_factory=dict[str, int])
    trace: tuple[str, ...] = ()


def run_seed(
    seed: int,
    *,
    ground: Ground | None = None,
    alter: Callable[[Parts], Parts] = lambda parts: parts,
    harm: Sequence[str] = HARM,
    only: Collection[str] | None = None,
    keep_trace: bool = False,
) -> Outcome:
    """Run one seed.

    Args:
        ground: where; the same for many seeds saves a sixth of their cost. None: one that is removed again.
        alter: changes what processes are made with; the suite's own test plants bugs with it.
        harm: kinds of faults to draw from.
        only: ways into a conversation that there are besides messages (`ways.py`); None: as the seed says.
    """
    if ground is None:
        with Ground() as ground:
            return run_seed(seed, ground=ground, alter=alter, harm=harm, only=only, keep_trace=keep_trace)
    trace: list[str] = []
    with _without_collector():
        run = _Run(seed, ground, alter, harm, only, trace.append if keep_trace else None)
        try:
            with _quiet(trace if keep_trace else None, run.scheduler.alike):
                run.go()
        finally:
            with _quiet(None):  # what the dead say while they are unwound is not part of the story
                run.bury()
        return Outcome(
            seed, tuple(run.broken), run.scheduler.digest, run.scheduler.steps, run.scheduler.now,
            run.hardware.counts, tuple(trace),
        )  # fmt: skip


@contextmanager
def _without_collector() -> Iterator[None]:
    """A run makes more objects than it drops; what it leaves is collected in one go, when it is over."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _quiet(trace: list[str] | None, alike: Callable[[str], str] = str) -> Iterator[None]:
    """The store's warnings go into the trace, or nowhere."""
    log = logging.getLogger("holdfast")
    before = (log.level, log.propagate, list(log.handlers))
    log.handlers = [_Into(trace, alike)] if trace is not None else []
    log.propagate = False
    log.setLevel(logging.INFO if trace is not None else logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.level, log.propagate, log.handlers = before[0], before[1], before[2]
        log.setLevel(before[0])


class _Into(logging.Handler):
    def __init__(self, trace: list[str], alike: Callable[[str], str]) -> None:
        super().__init__()
        self._trace = trace
        self._alike = alike

    def emit(self, record: logging.LogRecord) -> None:
        self._trace.append(f"    {record.levelname.lower()}: {self._alike(record.getMessage())}")


class _Run:
    """Everything of one run. Read `go` first."""

    def __init__(
        self,
        seed: int,
        ground: Ground,
        alter: Callable[[Parts], Parts],
        harm: Sequence[str],
        only: Collection[str] | None,
        trace: Callable[[str], None] | None,
    ) -> None:
        self.harm = harm
        self.scheduler = Scheduler(seed, places=(str(ground.kept), str(ground.made)), trace=trace)
        random = self.scheduler.random
        self.state, self.ledgers = ground.lay_out() if random.random() < 0.9 else ground.clear()
        self.hardware = SharedHardware(self.scheduler, self.state, self.ledgers)
        self.hardware.switches = random.choice((0.1, 0.4, 1.0))
        self.seen = Seen()
        self.outsider = Outsider(self.state, random, self.hardware.disk, self.ledgers)
        self.seen.is_durable = self._is_durable
        self.broken: list[str] = []
        self.fence_mode = "warn" if random.random() < 0.15 else "strict"
        is_tame = random.random() < 0.3
        self.ways = draw(random, only)
        traits = ChannelTraits(
            reconciles=random.random() < 0.5, longest_request_s=LONGEST_REQUEST_S,
            on_unknown="resend_labelled" if random.random() < 0.7 else "report",
        )  # fmt: skip
        self.channel = SimChannel(self.scheduler, self.seen, traits)
        self.channel.is_calm = is_tame
        self.parts = alter(
            Parts(
                SimModel(self.scheduler, self.seen, self.ways, is_tame=is_tame), self.channel,
                tools(self.scheduler, self.seen), self.fence_mode, self.ways, self.channel,
            )
        )  # fmt: skip
        self.senders = [
            Sender(self.scheduler, self.seen, number, says)
            for number, says in enumerate(_what_is_said(random, self.ways))
        ]
        self.person = Person(self.scheduler, self.seen)
        self.names = [f"p{number}" for number in range(1, 3 if random.random() < 0.7 else 4)]
        self.processes: dict[str, SimProcess] = {}
        self.ghosts: list[SimProcess] = []
        self.is_closing = False
        self.is_over = False
        self._error: BaseException | None = None
        self._started = 0
        self._stops_end_at = 0.0

    # ── the story ────────────────────────────────────────────────────────────────────────────────────────────────────

    def go(self) -> None:
        """The whole run; leaves what was broken in `broken`."""
        for name in self.names:
            self._start(name)
        for sender in self.senders:
            self._spawn("sender", sender.run)
        if "tools" in self.ways:
            self._spawn("person", self.person.run)
        self._spawn("nemesis", self._main)
        try:
            self.scheduler.run(lambda: self.is_over)
        except StuckError as stuck:
            self.broken.append(f"I9: {stuck}")
        self.broken += [one for one in self.seen.broken if one not in self.broken]

    def _spawn(self, name: str, run: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                run()
            except DeadError:
                raise
            except BaseException as exc:  # a fault of the simulation itself, told to whoever runs it
                self._error = exc
                self.is_over = True
                raise

        self.scheduler.spawn(self.scheduler.outside, name, guarded)

    def _main(self) -> None:
        random = self.scheduler.random
        for _ in range(int(random.random() * 7)):
            self._wait_a_moment()
            self._do_harm()
        self.scheduler.sleep(random.random() * 1.5)  # what is planned may still strike
        if self.scheduler.now < self._stops_end_at:
            self.scheduler.sleep(self._stops_end_at - self.scheduler.now)
        self._calm_down()
        self._let_timers_rest()
        if self._come_to_rest():
            self._use_what_was_left_torn()
            self._check()
        self.is_over = True

    def _wait_a_moment(self) -> None:
        """Some steps, or some time: faults have to meet both the middle of things and the pauses between them."""
        random = self.scheduler.random
        way = random.random()
        if way < 0.4:
            until = self.scheduler.now + 2.0
            while self.scheduler.now < until and not self._busy():
                self.scheduler.sleep(0.02)
        if way < 0.7:
            until_step = self.scheduler.steps + int(3 ** (1 + random.random() * (3 if way < 0.4 else 5)))
            while self.scheduler.steps < until_step:
                before = self.scheduler.steps
                self.scheduler.give_way()
                if self.scheduler.steps - before <= 1:  # nobody else could run
                    self.scheduler.sleep(0.02)
        else:
            self.scheduler.sleep(random.random() * random.choice((0.05, 0.5, 2.0)))

    def _busy(self) -> list[SimProcess]:
        """Processes with a turn under way."""
        return [one for one in self.processes.values() if one.hf is not None and one.hf.live_turns()]

    def _is_durable(self, text: str) -> bool:
        """Whether a power loss at this moment would leave an answer in a transcript, or kept beside one. What an
        outsider destroys is not asked about.
        """
        return any(edit.destroys for edit in self.outsider.edits) or self.hardware.disk.holds(text.encode())

    # ── harm ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _do_harm(self) -> None:
        living = [one for one in self.processes.values() if not one.host.dead]
        if not living:
            return
        random = self.scheduler.random
        likely = self._busy() if random.random() < 0.7 else living
        victim = (likely or living)[int(random.random() * len(likely or living))]
        kind = self.harm[int(random.random() * len(self.harm))]
        if kind == "kill planned":
            victim.machine.doom = 1 + int(2 ** (random.random() * 7))
            self._count(kind)
        elif kind == "kill all planned":  # as the end of a container, in the middle of a call of one of them
            victim.machine.dies_in_sync = random.random() < 0.5
            victim.machine.doom = None if victim.machine.dies_in_sync else 1 + int(2 ** (random.random() * 7))
            victim.machine.on_kill = self._kill_everybody
            self._count(kind)
        elif kind == "redelivery":
            self._plan_a_redelivery(living)
        elif kind == "kill":
            self._kill(victim)
        elif kind == "kill all":
            self._kill_everybody()
        elif kind == "stop":
            self._stop_for_a_while(victim)
        elif kind == "power loss":
            self._lose_power()
        elif kind == "disk":
            victim.machine.troubles.append(TROUBLES[int(random.random() * len(TROUBLES))])
        elif kind == "edit":
            edit = self.outsider.edit()
            if edit is not None:
                self._count(f"edit: {edit.kind}")
                self.scheduler.note(f"outsider: {edit.how} in {edit.path.name}, owner {edit.owner}")
        elif kind == "clock":
            victim.clock.offset_s += random.choice((-7200.0, 3600.0, 1e6))
            self._count("clock set")
        else:
            self.scheduler.note(f"{victim.name} is asked to end")
            victim.stop()
            self._count("orderly restart")

    def _count(self, what: str) -> None:
        self.hardware.count(what)

    def _kill(self, victim: SimProcess) -> None:
        self.scheduler.note(f"kill {victim.name}")
        victim.kill()

    def _kill_everybody(self) -> None:
        for one in list(self.processes.values()):
            if not one.host.dead:
                self._kill(one)

    def _plan_a_redelivery(self, living: list[SimProcess]) -> None:
        """Everybody dies in the sync of the next commit, so that what it says is read and may not last; whoever is told
        afterwards that his message is there already is told so in the last moment before a power loss.
        """
        self._count("redelivery planned")
        for one in living:
            one.machine.dies_in_sync = True
            one.machine.on_kill = self._kill_everybody
        self.seen.on_duplicate = self._lose_power_now

    def _lose_power_now(self) -> None:
        self.seen.on_duplicate = nothing
        self._count("power loss after a duplicate")
        self.scheduler.call_at(self.scheduler.now, self._lose_power)

    def _stop_for_a_while(self, victim: SimProcess) -> None:
        """At once, or in the middle of one of its next calls: holding a lock, or between looking and writing."""
        random = self.scheduler.random
        pause_s = random.choice((0.1, 1.0, 4.5 + random.random() * 3))

        def stop() -> None:
            self.scheduler.note(f"stop {victim.name} for {pause_s:.1f} s")
            self._count("stop")
            self.scheduler.stop(victim.host)
            self._stops_end_at = max(self._stops_end_at, self.scheduler.now + pause_s)
            self.scheduler.call_at(self.scheduler.now + pause_s, go_on)

        def go_on() -> None:
            self.scheduler.go_on(victim.host)

        if random.random() < 0.6:
            victim.machine.ambush = (1 + int(2 ** (random.random() * 6)), stop)
        else:
            stop()

    def _lose_power(self) -> None:
        """Everybody dies at once, and the disk shows what it had."""
        self.scheduler.note("power loss")
        self._count("power loss")
        for one in list(self.processes.values()):
            if not one.host.dead:
                one.kill()
        paths = self.state / LEDGER, self.state / f"{LEDGER}-wal"
        ledger, log = (path.read_bytes() if path.exists() else b"" for path in paths)
        self.hardware.disk.lose_power(self.scheduler.random, ledger, log, self._put_ledger)
        self.hardware.boot += 1

    def _put_ledger(self, ledger: bytes, log: bytes) -> bool:
        """Under the connections that are open. False: they have been closed, being open to another file."""
        if self.ledgers.lose_power(self.state, ledger, log):
            return True
        self.ledgers.close()
        return False

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, name: str) -> SimProcess:
        self._started += 1
        process = SimProcess(f"{name}.{self._started}", self.state, self.hardware, self.parts, self._has_ended)
        self.processes[name] = process
        process.start()
        for one in (*self.senders, self.person):
            one.living = list(self.processes.values())
        return process

    def _has_ended(self, process: SimProcess) -> None:
        self._count("kill" if not process.ended_in_order else "end")
        self.ghosts.append(process)
        name = process.name.split(".")[0]
        if not self.is_closing:
            after_s = self.scheduler.random.random() * self.scheduler.random.choice((0.01, 1.0))
            self.scheduler.call_at(self.scheduler.now + after_s, lambda: self._start_again(name))

    def _start_again(self, name: str) -> None:
        if not self.is_closing and self.processes[name].host.dead:
            self._start(name)

    # ── rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _calm_down(self) -> None:
        """No more faults. A process whose disk has failed it is restarted, as its messages ask for."""
        self.channel.is_calm = True
        self.seen.on_duplicate = nothing
        for one in self.processes.values():
            self.scheduler.go_on(one.host)
            one.machine.doom = one.machine.ambush = None
            one.machine.dies_in_sync = False
            one.machine.troubles.clear()
        for one in list(self.processes.values()):
            if one.machine.has_failed and not one.host.dead:
                self._kill(one)

    def _let_timers_rest(self) -> None:
        """Somebody pauses them; what has been fired goes on."""
        waiting = {"cron:look", "heartbeat:main"} if "timers" in self.ways else set[str]()
        if waiting:
            self.scheduler.sleep(self.scheduler.random.random() * 4)
        until = self.scheduler.now + REST_S
        while waiting and self.scheduler.now < until:
            self.scheduler.sleep(0.1)
            ready = [one for one in self.processes.values() if one.hf is not None]
            for timer in sorted(waiting) if ready else ():
                reply = ready[0].ask(lambda hf, timer=timer: orders.pause(hf, timer), 5.0)
                if reply.value is not None:
                    waiting.discard(timer)

    def _come_to_rest(self) -> bool:
        until = self.scheduler.now + REST_S
        while self.scheduler.now < until:
            self.scheduler.sleep(0.3)
            if all(sender.is_done for sender in self.senders) and _is_idle(self.ledgers.observer(self.state)):
                return True
        waiting = [str(number) for number, sender in enumerate(self.senders) if not sender.is_done]
        self.broken.append(f"I9: not at rest {REST_S:g} s after the last fault; not acknowledged: {waiting}")
        self.broken += self._find_broken()
        return False

    def _use_what_was_left_torn(self) -> None:
        """A line that nobody had asked to be durable may be torn by a mishap, and stays so until the conversation goes
        on (I2). Where it has not, somebody takes a turn in it now, whose claim has to repair the file.
        """
        harmed = {edit.path for edit in self.outsider.edits if edit.kind == "tampered"}
        for path, data in transcripts_in(self.state).items():
            if path in harmed or not any(unreadable(path, data)):
                continue
            asked = "select s.key from sessions s join transcripts t on s.transcript=t.id where t.path=?"
            place = str(path.relative_to(self.state))
            known = self.ledgers.observer(self.state).execute(asked, (place,)).fetchone()
            if known is None:
                continue
            self.hardware.counts["torn line mended"] = self.hardware.counts.get("torn line mended", 0) + 1
            until = self.scheduler.now + REST_S
            while self.scheduler.now < until:
                ready = [one for one in self.processes.values() if one.hf is not None and not one.host.dead]
                if ready and ready[0].ask(lambda hf, key=known[0]: _take_a_turn(hf, key), 30.0).value:
                    break
                self.scheduler.sleep(0.1)

    def _check(self) -> None:
        """Everything ends in order; then the promises, then the same bytes after one more opening and recovery."""
        self.is_closing = True
        self._end_all()
        self.broken += self._find_broken()
        self._count_effects(self.ledgers.observer(self.state))
        if self.scheduler.random.random() < 0.8:  # it costs as much as the rest of a short run
            return
        before = transcripts_in(self.state)
        for name in ("again", "and again"):
            process = self._start(name)
            self.scheduler.sleep(0.2)
            process.kill() if name == "again" else process.stop()
        self._end_all()
        if transcripts_in(self.state) != before:
            self.broken.append("I10: opening the state again has changed a transcript")

    def _count_effects(self, ledger: sqlite3.Connection) -> None:
        """What the faults have led to, for the batch to show that it was not idle."""
        counts = self.hardware.counts
        for what, number in effects_in(ledger).items():
            counts[what] = counts.get(what, 0) + number
        counts["message arrived"] = len(self.seen.arrived)
        counts["labelled copy"] = sum(one.label is not None for one in self.seen.arrived)
        counts["beginning became an answer"] = sum(one.was_preview and not one.preview for one in self.seen.arrived)
        counts["beginning taken away"] = sum(one.was_preview and one.gone for one in self.seen.arrived)

    def _end_all(self) -> None:
        until = self.scheduler.now + 20
        while any(not one.host.dead for one in self.processes.values()):
            for one in self.processes.values():
                one.stop()  # again and again: one that is only starting hears of it later
            self.scheduler.sleep(0.05)
            if self.scheduler.now > until:
                living = [one.name for one in self.processes.values() if not one.host.dead]
                self.broken.append(f"I9: {living} did not end within 20 s")
                return

    def _find_broken(self) -> list[str]:
        try:
            ledger = self.ledgers.observer(self.state)
            rest = load_rest(ledger, self.state, self.seen, self.outsider.edits, self.ways, self.hardware.counts)
        except sqlite3.DatabaseError as exc:
            return [*self.seen.broken, f"P3: the ledger cannot be read: {exc}"]
        for what, number in effects_of(rest).items():
            self.hardware.counts[what] = number
        return find_broken(ledger, self.state, rest, fence_mode=self.fence_mode)

    def bury(self) -> None:
        """Let go of everything, so that nothing of this run outlives it."""
        self.is_closing = True
        for one in list(self.processes.values()):
            one.kill()
        self.scheduler.bury()
        for ghost in self.ghosts:
            ghost.bury()
        os.close(self.hardware.nothing)
        if self._error is not None:
            raise self._error


def _what_is_said(random: Random, ways: Ways) -> list[Said]:
    """One message of each sender."""
    sessions = [MAIN, "agent:main:other"][: 1 if random.random() < 0.7 else 2]
    count = 1 + int(random.random() * 4) + 2 * ("queue" in ways) + ("commands" in ways) + ("compaction" in ways)
    found: list[Said] = []
    for number in range(count):
        session = sessions[int(random.random() * len(sessions))]
        content = f"message {number}" + PADDING * ("compaction" in ways or "previews" in ways)
        target = "user" if "queue" in ways else f"user{number}"  # messages share a turn only if one answer is for both
        if "commands" in ways and random.random() < 0.35:
            content = random.choice(("/new", "/new", "/stop", "/reset"))
        late_s = 0.3 if "machines" in ways else 0.0  # so that he finds a machine at work
        found.append(Said(session, content, target, late_s=late_s))
    if "machines" in ways:
        found += [Said(sessions[0], f"event {number}", None, lane="hook") for number in range(2)]
    if "webhooks" in ways:
        found.append(Said("hook:deploy", "deployed", "deploys", lane="hook", redeliveries=2 + int(random.random() * 2)))
    return found


async def _take_a_turn(hf: Holdfast, session: str) -> bool:
    async with hf.turn(session, wait_s=5):
        return True


def nothing() -> None:
    """Nobody wants to hear of it."""


def _is_idle(connection: sqlite3.Connection) -> bool:
    busy = connection.execute(
        "select (select count(*) from inputs where state in ('queued', 'running'))"
        " + (select count(*) from outbox where state in ('pending', 'started', 'unknown'))"
        " + (select count(*) from transcripts where owner_turn is not null)"
        " + (select count(*) from children where state='open')"
        " + (select count(*) from timer_runs where state='running')"
        " + (select count(*) from background where state='open')"
        " + (select count(*) from previews p where not exists"
        "    (select 1 from outbox o where o.id=p.id and o.state='failed'))"
        " + (select count(*) from marks where asked is not null and outcome is null)"
    ).fetchone()[0]
    return busy == 0
