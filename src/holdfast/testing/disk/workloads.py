"""What is done while the disk fails: each workload has a preparation, whose process dies at its end, and an act, in
which faults are planted. `Work` tells what was promised, as it was promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

import holdfast
from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.errors import TurnStalledError
from holdfast.inbound import announcement, orders
from holdfast.inbound.beating import HeartbeatSettings
from holdfast.inbound.child import Child
from holdfast.inbound.children import Children
from holdfast.inbound.cron import JobDefinition
from holdfast.inbound.event import Duplicate, InboundEvent, LaneFull, Route
from holdfast.inbound.timers import Timers
from holdfast.kernel import Holdfast
from holdfast.lane.queue import Mode
from holdfast.outbox.delivery import Courier
from holdfast.recovery import upkeep
from holdfast.recovery.watchdog import Watchdog
from holdfast.recovery.watching import WatchSettings
from holdfast.store.views import ArchiveView, InputView
from holdfast.testing.channel import FakeChannel, Received
from holdfast.testing.storm import outsider
from holdfast.turn.turn import Turn

KEY, OTHER, HOOK = "agent:main:main", "agent:main:other", "hook:deploy"
JOB = JobDefinition("job", "is there mail", every="1000h", deliver="none")
HEARTBEAT = HeartbeatSettings("main", 3_600_000_000, KEY, target="last")
WATCH = WatchSettings(warn_s=0.001, abort_s=0.002, live_owners="ask")
"""Whoever says nothing for a moment stands still."""
LONGEST_REQUEST_S = 0.2
Tell = Callable[[str, str, str], None]
"""kind ("accepted", "answered", "appended", "delivered"), name, text."""


class TellingChannel(FakeChannel):
    """Tells what has arrived, in its place between the promises."""

    def __init__(self, tell: Tell, *, traits: ChannelTraits, platform: Path) -> None:
        super().__init__(traits=traits, platform=platform)
        self._tell_arrival = tell

    async def send(self, request: SendRequest) -> Sent:
        sent = await super().send(request)
        self._tell_arrival("arrived", request.delivery_id, platform_line(request).decode())
        return sent


def platform_line(request: SendRequest) -> bytes:
    """One line of the receiving side's file."""
    one = Received(request.delivery_id, request.target, request.text, request.label)
    return msgspec.json.encode(one)


@dataclass
class Work:
    """What a worker does.

    Args:
        platform: the receiving side of its channel, outside of the state.
        undisturbed: within it no fault is planted: what others do is not ours to explain.
    """

    hf: Holdfast
    state: Path
    platform: Path
    tell: Tell
    undisturbed: Callable[[], AbstractContextManager[None]] = nullcontext

    async def accept(self, text: str, *, session: str = KEY, lane: str = "main", queue: Mode | None = None) -> str:
        event = InboundEvent(
            session, {"content": text}, source="test", key=text, route=Route("test", "alice"), lane=lane, queue=queue
        )
        admission = await self.hf.accept(event)
        assert not isinstance(admission, LaneFull)
        self.tell("accepted", admission.input_id, text)
        return admission.input_id

    async def claim(self, input_id: str) -> Turn:
        turn = await self._claim(await self.hf.input(input_id))
        view = turn.view
        assert view is not None
        await turn.append_input([{"role": "user", "content": view.payload["content"]}])
        return turn

    async def _claim(self, seen: InputView) -> Turn:
        turn = await self.hf.claim(seen.session, lane=seen.lane, wait_s=5, input_id=seen.id)
        if not isinstance(turn, Turn):
            raise holdfast.SessionBusyError(seen.session, 0.0, turn.why)
        return turn

    async def answer(self, turn: Turn, text: str) -> None:
        async def say() -> None:
            async with turn.prompt_window() as window:
                window.finished(text)
            await turn.append(holdfast.assistant(text, model="demo/demo"))

        await self._to_its_end(turn, say, text)

    async def announce(self, view: InputView) -> None:
        """What a gateway does with the result of a timer's run."""
        turn = await self._claim(view)
        await self._to_its_end(turn, lambda: announcement.run_announcement(turn, view), view.payload["content"])

    async def _to_its_end(self, turn: Turn, work: Callable[[], Awaitable[None]], text: str) -> None:
        """Whatever becomes of the turn, it is closed, as every user of the library does."""
        failure: BaseException | None = None
        try:
            await work()
        except BaseException as exc:
            failure = exc
            raise
        finally:
            state = await self.hf.close_turn(turn, failure)
            if failure is None and state == "answered" and turn.input_id is not None:
                self.tell("answered", turn.input_id, text)

    async def whole(self, text: str) -> None:
        await self.answer(await self.claim(await self.accept(text)), f"answer to {text}")

    def channel(self) -> FakeChannel:
        traits = ChannelTraits(reconciles=True, longest_request_s=LONGEST_REQUEST_S, text_max=100_000)
        return TellingChannel(self.tell, traits=traits, platform=self.platform)

    async def deliver(self) -> None:
        """Until nothing is on its way."""
        courier = Courier(self.hf, [self.channel()])
        running = asyncio.ensure_future(courier.run())
        try:
            while any(one.state not in ("sent", "failed") for one in await self.hf.deliveries()):
                if running.done():
                    running.result()
                    return
                await asyncio.sleep(0.005)
        finally:
            await courier.stop(1.0)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


# ── preparations: a process dies at the end of each ──────────────────────────────────────────────────────────────────


async def one_turn(work: Work) -> None:
    await work.whole("first")


async def unfinished(work: Work) -> None:
    """An answered turn, and one whose process dies in the middle."""
    await work.whole("first")
    turn = await work.claim(await work.accept("second"))
    await turn.append(holdfast.custom("note", 1))


async def finished_not_settled(work: Work) -> None:
    await work.whole("first")
    turn = await work.claim(await work.accept("second"))
    await turn.append(holdfast.assistant("answer to second", model="demo/demo"))


async def left_by_an_outsider(work: Work) -> None:
    """A line nobody recorded, and a torn one behind it."""
    await work.whole("first")
    path = await work.hf.session(KEY).path()
    assert path is not None
    outsider.append(Path(path), "user")
    outsider.tear(Path(path))


async def delivered(work: Work) -> None:
    """An answered turn whose answer has arrived: what may be archived."""
    await work.whole("first")
    await work.deliver()


async def archived(work: Work) -> None:
    """A conversation that was put away, and one that has begun in its place."""
    await delivered(work)
    await archive(work)
    await work.whole("second")
    await work.deliver()


async def collecting(work: Work) -> None:
    """A turn that has taken two more messages in, whose process dies before it answers."""
    await work.whole("first")
    mine = [await work.accept(text, queue="collect") for text in ("second", "third", "fourth")]
    turn = await work.claim(mine[0])
    assert [view.id for view in await turn.take_in("merge")] == mine[1:]


async def scheduled(work: Work) -> None:
    await work.whole("first")
    await orders.add_job(work.hf, JOB)


async def due(work: Work) -> None:
    """A heartbeat whose time has come, in a conversation whose answer has arrived."""
    await delivered(work)
    await Timers(work.hf, heartbeats=[HEARTBEAT]).begin()
    await orders.change(work.hf, "heartbeat:main", lambda seen: replace(seen, next_at_ms=1))


async def another(work: Work) -> None:
    """A conversation of which nothing was promised to anybody."""
    await work.whole("first")
    async with work.hf.turn(OTHER, wait_s=5) as turn:
        await turn.append(holdfast.user("promised to nobody"))


# ── acts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def nothing(work: Work) -> None:
    """The state is made by opening it."""


async def append(work: Work) -> None:
    """Lines of a turn with a tool, and metadata beside it."""
    turn = await work.claim(await work.accept("second"))
    call = {"type": "toolCall", "id": "c", "name": "work", "arguments": {}}
    calls = holdfast.assistant([call], model="demo/demo", stop_reason="toolUse")
    work.tell("appended", await turn.append(calls), "")
    await turn.check()
    await turn.append(holdfast.tool_result("c", "work", "done"))
    line = await work.hf.session(KEY).append_metadata(holdfast.mirror("delivered"), durable=True)
    work.tell("appended", line, "")
    await work.answer(turn, "answer to second")


async def settle(work: Work) -> None:
    await work.whole("second")


async def accept(work: Work) -> None:
    """New ones, one that was there before, and one whose key is used again."""
    first = await work.accept("second")
    await work.accept("third")
    again = await work.hf.accept(
        InboundEvent(KEY, {"content": "second"}, source="test", key="second", route=Route("test", "alice"))
    )
    assert isinstance(again, Duplicate)
    assert again.input_id == first
    await work.accept("first")


async def take_over(work: Work) -> None:
    """Whatever was left open is closed, and another turn is run."""
    async with work.hf.turn(KEY, wait_s=5) as turn:
        await turn.append(holdfast.user("from the library"))


async def recover(work: Work) -> None:
    """What a worker does before it looks at the queue."""
    await work.hf.store.recover_dead()


async def salvage_line(work: Work) -> None:
    """Another process takes the turn (its term is over at once); the finished answer becomes a line for people."""
    turn = await work.claim(await work.accept("second"))
    async with holdfast.open(work.state, beat_term_s=0.0) as other:
        async with other.turn(KEY, wait_s=5) as taker:
            await taker.append(holdfast.user("from the taker"))
        with suppress(holdfast.OwnershipLostError):
            await turn.append(holdfast.assistant("answer to second", model="demo/demo"))
        await work.hf.close_turn(turn, None)


async def salvage_beside(work: Work) -> None:
    """The file is changed under the turn; the answer is kept beside it."""
    turn = await work.claim(await work.accept("second"))
    failure: BaseException | None = None
    try:
        async with turn.prompt_window() as window:
            with work.undisturbed():
                outsider.append(Path(turn.transcript.path), "user")
            window.finished("answer to second")
    except holdfast.OwnershipLostError as lost:
        failure = lost
    await work.hf.close_turn(turn, failure)


async def deliver(work: Work) -> None:
    await work.deliver()


async def archive(work: Work) -> None:
    made = await work.hf.session(KEY).archive(by="a test", wait_s=5)
    assert isinstance(made, ArchiveView), made


async def archive_and_go_on(work: Work) -> None:
    await archive(work)
    await work.whole("second")


async def reset(work: Work) -> None:
    """A conversation that begins anew, and metadata beside it."""
    await work.hf.session(KEY).reset(by="a test", wait_s=5)
    await work.hf.session(KEY).rename("A new one")
    await work.hf.session(KEY).mark_read(by="alice")
    await work.whole("second")


async def redeliver(work: Work) -> None:
    """A webhook that is delivered again before and after it is answered: one input, one turn."""
    first = await work.accept("deployed", session=HOOK, lane="hook")
    assert await work.accept("deployed", session=HOOK, lane="hook") == first
    await work.answer(await work.claim(first), "answer to deployed")
    assert await work.accept("deployed", session=HOOK, lane="hook") == first


async def collect(work: Work) -> None:
    """Whatever was left open is taken up again; messages share a turn, before its first step or after it."""
    await work.hf.store.recover_dead()
    waiting = await work.hf.inputs(session=KEY, state="queued")
    mine = waiting[-1].id if waiting else await work.accept("second", queue="collect")
    turn = await work.claim(mine)
    await work.accept("late", queue="collect")
    await turn.take_in("merge")
    await work.answer(turn, "answer to several")


async def steer(work: Work) -> None:
    """A message comes while a tool runs, and joins the turn after it."""
    turn = await work.claim(await work.accept("second", queue="steer"))
    call = {"type": "toolCall", "id": "c", "name": "work", "arguments": {}}
    await turn.append(holdfast.assistant([call], model="demo/demo", stop_reason="toolUse"))
    await work.accept("third", queue="steer")
    await turn.append(holdfast.tool_result("c", "work", "done"))
    await turn.take_in("steer")
    await work.answer(turn, "answer to both")


async def fire(work: Work) -> None:
    """A job is fired, answered, and its run closed."""
    run = await orders.run_now(work.hf, f"cron:{JOB.name}")
    assert run.input_id is not None
    await work.answer(await work.claim(run.input_id), "nothing new")
    await Timers(work.hf).look()


async def beat(work: Work) -> None:
    """A heartbeat is fired, answered in its own transcript, and what it has found enters the conversation."""
    timers = Timers(work.hf)

    async def what_waits() -> list[InputView]:
        """One look at most meets a disk that refuses; after a failed sync nothing settles until a restart."""
        for _ in range(3):
            await timers.look()
        return await work.hf.inputs(state="queued")

    for fired in await what_waits():
        await work.answer(await work.claim(fired.id), "somebody waits")
    for news in await what_waits():
        await work.announce(news)
    await timers.look()


async def stand_still(work: Work) -> None:
    """A turn of which nothing is heard is told of, asked to end, and ends; then it is said what came of that."""
    turn = await work.claim(await work.accept("second"))
    work.hf.watch = WATCH
    watchdog = Watchdog(work.hf)
    failure: BaseException | None = None
    try:
        turn.begins("model", "demo/demo")
        while True:
            await asyncio.sleep(0.005)
            await watchdog.look()
            await turn.check()
    except TurnStalledError as asked:
        failure = asked
    except BaseException as exc:
        failure = exc
        raise
    finally:
        await work.hf.close_turn(turn, failure)
    await watchdog.look()


async def compact(work: Work) -> None:
    """A conversation is shortened in the middle of a turn."""
    turn = await work.claim(await work.accept("second"))
    await turn.append_compaction("what was said before", None)
    await work.answer(turn, "answer to second")


async def spawn(work: Work) -> None:
    """A turn hands out a task, twice under the same name; the task is done, and its parent hears of it."""
    turn = await work.claim(await work.accept("second"))
    child = await turn.spawn("a task", key="the task")
    assert isinstance(child, Child)
    assert await turn.spawn("a task", key="the task") == child
    await work.answer(turn, "answer to second")
    [task] = await work.hf.inputs(session=child.session)
    await work.answer(await work.claim(task.id), "the task is done")
    await Children(work.hf).look()


async def restore(work: Work) -> None:
    [made] = await work.hf.archives()
    assert await work.hf.session(KEY).restore(made.id, by="a test", wait_s=5) is None


async def delete_archive(work: Work) -> None:
    made = await work.hf.session(OTHER).archive(by="a test", wait_s=5)
    assert isinstance(made, ArchiveView), made
    await work.hf.delete_archive(made.id)


async def finish_archives(work: Work) -> None:
    """What a gateway does for whoever died at it."""
    await work.hf.store.recover_dead()
    await upkeep.finish(work.hf)


Act = Callable[[Work], Awaitable[None]]
WORKLOADS: dict[str, tuple[Act | None, Act]] = {
    "opening": (None, nothing),
    "opening again": (unfinished, nothing),
    "append": (one_turn, append),
    "settle": (one_turn, settle),
    "accept": (one_turn, accept),
    "takeover": (unfinished, take_over),
    "takeover of a final line": (finished_not_settled, take_over),
    "salvage": (one_turn, salvage_line),
    "salvage beside": (one_turn, salvage_beside),
    "delivery": (one_turn, deliver),
    "reset": (one_turn, reset),
    "redelivery": (one_turn, redeliver),
    "collecting": (one_turn, collect),
    "collecting again": (collecting, collect),
    "steering": (one_turn, steer),
    "timer": (scheduled, fire),
    "heartbeat": (due, beat),
    "standstill": (one_turn, stand_still),
    "compaction": (one_turn, compact),
    "sub-agent": (one_turn, spawn),
    "archive": (delivered, archive_and_go_on),
    "restore": (archived, restore),
    "deleting an archive": (another, delete_archive),
    "recovery": (unfinished, recover),
    "recovery of a final line": (finished_not_settled, recover),
    "after an outsider": (left_by_an_outsider, take_over),
}
"""Name, preparation, act."""
