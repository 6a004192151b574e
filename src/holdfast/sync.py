"""The library without `async`: the same names, the same errors, over one event loop on a thread of its own per handle.

    import holdfast.sync

    with holdfast.sync.open("./state") as hf:
        with hf.turn("agent:main:main", wait_s=30) as turn:
            turn.append(holdfast.user("hello"))
            with turn.prompt_window() as window:
                answer = call_any_model(turn.context())
                window.finished(answer)
            turn.append(holdfast.assistant(answer, model="demo/demo"))

What a method does, returns and raises stands at its namesake in `holdfast.kernel`, `holdfast.turn.turn` and
`holdfast.session.prompt_window`. Handles, sessions and turns may be used from several threads at once; a `with` is
left by the thread that entered it. Each call costs two thread switches, about 0.1 ms, over the asynchronous one.

Ctrl-C: the call that waits is abandoned as if its task had been cancelled, and KeyboardInterrupt goes on; leaving a
turn is finished first, so that its input goes back to its place. A forked child owns nothing: it opens its own handle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import holdfast
from holdfast.clock import Clock
from holdfast.inbound.child import Child, Refused
from holdfast.inbound.event import Admission, InboundEvent, Route
from holdfast.lane.queue import QueueSettings
from holdfast.loop_thread import LoopThread
from holdfast.model.policy import ModelsNow, Pin
from holdfast.recovery.classify import Owner, Plan
from holdfast.recovery.progress import Doing
from holdfast.recovery.reaper import Report
from holdfast.recovery.watching import Finding
from holdfast.session import prompt_window as asynchronous_window
from holdfast.session.entries import Entry
from holdfast.session.fence import Epoch, Verdict
from holdfast.session.lines import Line
from holdfast.store.views import ArchiveView, DeliveryView, Hold, InputView, InUse, SessionView, TurnView, WhyReport
from holdfast.tool.approval import Approval, Scope
from holdfast.turn.owned import Calls, SessionOf
from holdfast.turn.turn import Turn as AsyncTurn
from holdfast.turn.turn import Where, current_turn

P = ParamSpec("P")
R = TypeVar("R")


class Holdfast:
    """The handle that `holdfast.sync.open` yields. Entering opens the state, leaving closes it and ends the thread."""

    def __init__(self, opened: AbstractAsyncContextManager[holdfast.Holdfast]) -> None:
        self._loop = LoopThread()
        self._opened = opened

    def __enter__(self) -> Holdfast:
        self._hf = self._loop.start(self._opened)
        return self

    def __exit__(self, kind: object, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._loop.stop()

    # ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def turn(
        self,
        session: str,
        *,
        lane: str = "main",
        wait_s: float = 30.0,
        input_id: str | None = None,
        fence_mode: str | None = None,
        thorough: bool = False,
    ) -> Iterator[Turn]:
        """Own a session for one turn. Leaving settles it; an exception settles it as failed, with its class."""
        asked = self._hf.turn(
            session, lane=lane, wait_s=wait_s, input_id=input_id, fence_mode=fence_mode, thorough=thorough
        )
        with self._loop.held(asked) as inner:
            token = current_turn.set(inner.id)  # turns begun on this thread, inside, are its children
            try:
                yield Turn(self._loop, inner)
            finally:
                current_turn.reset(token)

    def owned(
        self, session: SessionOf, *, lane: str = "main", wait_s: float = 30.0, fence_mode: str | None = None
    ) -> Callable[[Callable[..., R]], Callable[..., R]]:
        """Make each call of a function a turn, which it gets as its argument `turn`, if it has one."""

        def decorate(function: Callable[..., R]) -> Callable[..., R]:
            calls = Calls(function, session)

            def call(*args: Any, **kwargs: Any) -> R:
                key = calls.session(args, kwargs)
                with self.turn(key, lane=lane, wait_s=wait_s, fence_mode=fence_mode) as turn:
                    return function(*args, **kwargs, **({"turn": turn} if calls.takes_turn else {}))

            return calls.dressed(function, call)

        return decorate

    # ── inputs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def accept(self, event: InboundEvent) -> Admission:
        """The one door: `Accepted`, `Duplicate` or `LaneFull`."""
        return self._loop.run(self._hf.accept(event))

    def input(self, input_id: str) -> InputView:
        return self._loop.run(self._hf.input(input_id))

    def wait_input(self, input_id: str, timeout_s: float | None = None) -> InputView:
        """The input once it is settled, or as it is after `timeout_s`."""
        return self._loop.run(self._hf.wait_input(input_id, timeout_s))

    def find_join(self, event: InboundEvent, *, within_s: float = 3600.0) -> str | None:
        return self._loop.run(self._hf.find_join(event, within_s=within_s))

    def cancel(self, target: str, *, by: str) -> str:
        return self._loop.run(self._hf.cancel(target, by=by))

    def drain(self) -> None:
        """Take no new input from now on; turns that run may end."""
        self._hf.drain()

    # ── sub-agents ───────────────────────────────────────────────────────────────────────────────────────────────────

    def approvals(self, *, session: str | None = None, pending: bool = False, limit: int = 100) -> list[Approval]:
        """Questions whether a tool call may run, newest first."""
        return self._loop.run(self._hf.approvals(session=session, pending=pending, limit=limit))

    def answer_approval(self, approval_id: str, *, yes: bool, by: str, scope: Scope = "once") -> Approval:
        """Answer one. Raises: as `holdfast.Holdfast.answer_approval`."""
        return self._loop.run(self._hf.answer_approval(approval_id, yes=yes, by=by, scope=scope))

    def children(
        self, *, session: str | None = None, parent_input: str | None = None, only_open: bool = False, limit: int = 100
    ) -> list[Child]:
        """Sub-agents, newest first."""
        found = self._hf.children(session=session, parent_input=parent_input, only_open=only_open, limit=limit)
        return self._loop.run(found)

    def child(self, child_id: str) -> Child:
        return self._loop.run(self._hf.child(child_id))

    def wait_child(self, child_id: str, timeout_s: float | None = None) -> tuple[Child, InputView]:
        """A sub-agent once its work is over, or as it is after `timeout_s`, and the input whose end is its own."""
        return self._loop.run(self._hf.wait_child(child_id, timeout_s))

    def stop_children(self, session: str, *, by: str) -> list[str]:
        """Stop the sub-agents of a session, and theirs, without telling it anew. Returns their ids; durable."""
        return self._loop.run(self._hf.stop_children(session, by=by))

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def session(self, key: str) -> Session:
        return Session(self._loop, self._hf.session(key))

    def sessions(self, *, limit: int = 1000, prefix: str = "", archived: bool = False) -> list[SessionView]:
        return self._loop.run(self._hf.sessions(limit=limit, prefix=prefix, archived=archived))

    def inputs(self, *, session: str | None = None, state: str | None = None, limit: int = 100) -> list[InputView]:
        return self._loop.run(self._hf.inputs(session=session, state=state, limit=limit))

    def turns(self, *, session: str | None = None, limit: int = 100) -> list[TurnView]:
        return self._loop.run(self._hf.turns(session=session, limit=limit))

    def deliveries(self, *, state: str | None = None, limit: int = 100) -> list[DeliveryView]:
        return self._loop.run(self._hf.deliveries(state=state, limit=limit))

    def queue_settings(self, session: str) -> QueueSettings:
        return self._loop.run(self._hf.queue_settings(session))

    def change_queue(self, session: str, change: dict[str, Any] | None) -> QueueSettings:
        return self._loop.run(self._hf.change_queue(session, change))

    def held(self) -> Hold | None:
        return self._loop.run(self._hf.held())

    def release(self) -> Hold | None:
        """Let held work go on; the hold that was there, or None."""
        return self._loop.run(self._hf.release())

    def plan_recovery(self, session: str | None = None, *, beat_term_s: float = 90.0, ask: str | None = None) -> Plan:
        return self._loop.run(self._hf.plan_recovery(session, beat_term_s=beat_term_s, ask=ask))

    def recover(
        self, session: str | None = None, *, wait_s: float = 0.0, beat_term_s: float = 90.0, ask: str | None = None
    ) -> Report:
        return self._loop.run(self._hf.recover(session, wait_s=wait_s, beat_term_s=beat_term_s, ask=ask))

    def owners(self, session: str | None = None) -> list[Owner]:
        return self._loop.run(self._hf.owners(session))

    def findings(self, session: str | None = None) -> list[Finding]:
        return self._loop.run(self._hf.findings(session))

    def archives(self, *, session: str | None = None, limit: int = 1000) -> list[ArchiveView]:
        return self._loop.run(self._hf.archives(session=session, limit=limit))

    def delete_archive(self, archive: str) -> int:
        return self._loop.run(self._hf.delete_archive(archive))

    def models(self) -> ModelsNow:
        return self._loop.run(self._hf.models())

    def pin_model(
        self, session: str, model: str, *, by: str, expires_in_s: float | None = None, credential: str = ""
    ) -> Pin | None:
        """A user's choice: the session's turns ask this model or none."""
        chosen = self._hf.pin_model(session, model, by=by, expires_in_s=expires_in_s, credential=credential)
        return self._loop.run(chosen)

    def unpin_model(self, session: str) -> Pin | None:
        return self._loop.run(self._hf.unpin_model(session))

    def why(self, target: str) -> WhyReport:
        return self._loop.run(self._hf.why(target))

    @property
    def state(self) -> str:
        """The state directory or URL."""
        return self._hf.state

    @property
    def process_id(self) -> str:
        return self._hf.process_id

    @property
    def draining(self) -> bool:
        return self._hf.draining

    @property
    def clock(self) -> Clock:
        return self._hf.clock


def _without_async(opener: Callable[P, AbstractAsyncContextManager[holdfast.Holdfast]]) -> Callable[P, Holdfast]:
    def open(*args: P.args, **kwargs: P.kwargs) -> Holdfast:  # noqa: A001  # as `holdfast.open`
        return Holdfast(opener(*args, **kwargs))

    open.__doc__ = opener.__doc__
    return open


open = _without_async(holdfast.open)  # noqa: A001  # `holdfast.sync.open` stands for `holdfast.open`, arguments and all


class Turn:
    """The right to extend one conversation, while it lasts. See `holdfast.Turn`."""

    def __init__(self, loop: LoopThread, inner: AsyncTurn) -> None:
        self._loop = loop
        self._inner = inner
        self.id: str = inner.id
        self.session: str = inner.session
        self.lane: str = inner.lane
        self.input_id: str | None = inner.input_id
        self.transcript: Where = inner.transcript

    @property
    def epoch(self) -> Epoch:
        return self._inner.epoch

    @property
    def attempt(self) -> int:
        return self._inner.attempt

    @property
    def view(self) -> InputView | None:
        """The accepted input it answers, as it was claimed."""
        return self._inner.view

    @property
    def lost(self) -> Verdict | None:
        return self._inner.lost

    @property
    def cancelled_by(self) -> str | None:
        return self._inner.cancelled_by

    def begins(self, doing: Doing, name: str = "", *, limit_s: float | None = None) -> None:
        """Say what the turn does from now on, for whoever asks whether it works or stands still."""
        self._inner.begins(doing, name, limit_s=limit_s)

    def heard(self) -> None:
        """A sign that what the turn does goes on."""
        self._inner.heard()

    def append(self, entry: Entry, *, durable: bool | None = None, final: bool | None = None) -> str:
        """Write one entry at the end of the active branch. Returns its id."""
        return self._loop.run(self._inner.append(entry, durable=durable, final=final))

    def append_input(self, messages: list[dict[str, Any]]) -> None:
        self._loop.run(self._inner.append_input(messages))

    def spawn(
        self, task: str, *, label: str | None = None, agent: str | None = None, model: str | None = None,
        timeout_s: float | None = None, key: str | None = None,
    ) -> Child | Refused:  # fmt: skip
        """Give a task to a sub-agent: the child, or the limit that forbids it."""
        made = self._inner.spawn(task, label=label, agent=agent, model=model, timeout_s=timeout_s, key=key)
        return self._loop.run(made)

    def prompt_window(self) -> PromptWindow:
        """The span in which the model is asked; the write lock is not held in it."""
        return PromptWindow(self._loop, self._inner.prompt_window())

    def context(self) -> list[dict[str, Any]]:
        return self._loop.run(self._inner.context())

    def branch(self) -> list[Line]:
        return self._loop.run(self._inner.branch())

    def inspect(self) -> Verdict:
        return self._loop.run(self._inner.inspect())

    def check(self) -> None:
        """Raise unless the session is still ours and nobody asked the turn to stop. Before each tool starts."""
        self._loop.run(self._inner.check())

    def raise_if_cancelled(self) -> None:
        self._loop.run(self._inner.raise_if_cancelled())

    def salvage(self, entry: Entry) -> None:
        self._loop.run(self._inner.salvage(entry))

    @property
    def outcome(self) -> holdfast.Outcome | None:
        """What the input ends as when the turn is left without a final line and without an exception; may be set."""
        return self._inner.outcome

    @outcome.setter
    def outcome(self, outcome: holdfast.Outcome | None) -> None:
        self._inner.outcome = outcome


class PromptWindow:
    """`with turn.prompt_window() as window:`; afterwards `window.verdict` says what was found."""

    def __init__(self, loop: LoopThread, inner: asynchronous_window.PromptWindow) -> None:
        self._loop = loop
        self._inner = inner

    def __enter__(self) -> PromptWindow:
        self._loop.run(self._inner.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.run(self._inner.__aexit__(kind, exc, traceback))

    def finished(self, answer: Any) -> None:
        """The model has answered: text, a v3 message or an entry. It is salvaged if the window turns out lost."""
        self._inner.finished(answer)

    @property
    def verdict(self) -> Verdict | None:
        return self._inner.verdict


class Session:
    """One session key, for reading and for lines that are not conversation."""

    def __init__(self, loop: LoopThread, inner: holdfast.Session) -> None:
        self._loop = loop
        self._inner = inner
        self.key: str = inner.key

    def lines(self) -> list[Line]:
        return self._loop.run(self._inner.lines())

    def entries(self) -> list[Any]:
        return self._loop.run(self._inner.entries())

    def path(self) -> str | None:
        return self._loop.run(self._inner.path())

    def spawn(
        self, task: str, *, label: str | None = None, agent: str | None = None, model: str | None = None,
        timeout_s: float | None = None, key: str | None = None, route: Route | None = None,
    ) -> Child | Refused:  # fmt: skip
        """Give a task to a sub-agent in the name of this session: the child, or the limit that forbids it."""
        made = self._inner.spawn(task, label=label, agent=agent, model=model, timeout_s=timeout_s, key=key, route=route)
        return self._loop.run(made)

    def reset(self, *, by: str, wait_s: float = 0.0) -> None:
        self._loop.run(self._inner.reset(by=by, wait_s=wait_s))

    def archive(self, *, by: str, why: str = "asked", wait_s: float = 0.0) -> ArchiveView | InUse:
        return self._loop.run(self._inner.archive(by=by, why=why, wait_s=wait_s))

    def restore(self, archive: str, *, by: str, wait_s: float = 0.0) -> InUse | None:
        return self._loop.run(self._inner.restore(archive, by=by, wait_s=wait_s))

    def append_metadata(self, entry: Entry, *, durable: bool = False) -> str:
        """Write one line that is not conversation. Needs no turn. Returns its id."""
        return self._loop.run(self._inner.append_metadata(entry, durable=durable))

    def rename(self, title: str | None) -> None:
        return self._loop.run(self._inner.rename(title))

    def mark_read(self, *, by: str, upto: str | None = None) -> bool:
        return self._loop.run(self._inner.mark_read(by=by, upto=upto))


__all__ = ["Holdfast", "PromptWindow", "Session", "Turn", "open"]
