"""What every operation on the ledger stands on, by the names that both backends give it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.clock import Clock
from holdfast.lane.policy import LaneLimits
from holdfast.model.policy import ModelFacts
from holdfast.recovery.classify import Life
from holdfast.session.fence import Epoch
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.sql.reads import LedgerReads

Run = Callable[[Any], Any]
"""SQL on the connection that it is handed, inside a transaction."""


class Done(Protocol):
    """What a thread waits for."""

    def set(self) -> object: ...

    def wait(self) -> object: ...


@dataclass(slots=True, eq=False)
class Job:
    """Work for the thread that writes the ledger. Several may share a transaction; one that fails takes nothing with
    it. `sync`, `prepare` and `finish` are about transcripts that are files (`store/embedded/writer.py`).
    """

    run: Run | None = None  # None: only the sync
    durable: bool = False
    essential: bool = False  # explanations: may use the reserve when the disk is full
    beside: bool = False  # touches rows that only its owner does: PostgreSQL runs it beside others of its kind
    sync: Callable[[], Any] | None = None
    prepare: Callable[[], Any] | None = None
    finish: Callable[[bool, Any], Any] | None = (
        None  # (committed, result of run) -> result; always called after prepare
    )
    result: Any = None
    error: BaseException | None = None
    prepared: bool = False
    done: Done | None = None  # set once it is over, for a thread that waits
    waiting: tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]] | None = None
    when_over: Callable[[Job], object] | None = None  # on the submitter's loop, even if nobody waits any more


class Writer(Protocol):
    """The one thread of this process that writes."""

    def submit(self, job: Job) -> asyncio.Future[Any]:
        """Queue one job; await what it returns. Cancelled: the job runs all the same; nobody hears of its result."""
        ...

    def post(self, run: Run) -> None:
        """Run without telling anybody: notes for people that no promise rests on. Errors are logged."""
        ...


class Options(Protocol):
    @property
    def limits(self) -> LaneLimits: ...

    @property
    def faults(self) -> Callable[[Any], None]:
        """Called at named points; for tests."""
        ...


class Holder(Protocol):
    """A granted claim, as the ledger's operations see it."""

    @property
    def turn(self) -> str: ...

    @property
    def epoch(self) -> Epoch: ...

    @property
    def transcript(self) -> str: ...

    @property
    def input_row(self) -> Row | None:
        """As it was when it was claimed."""
        ...

    @property
    def models(self) -> ModelFacts: ...


class Ledger(Protocol):
    """One process's hold on a ledger."""

    clock: Clock

    @property
    def options(self) -> Options: ...

    @property
    def writer(self) -> Writer: ...

    @property
    def reads(self) -> LedgerReads: ...

    @property
    def process(self) -> str:
        """This process's name in the ledger."""
        ...

    def now_ms(self) -> int: ...

    def refuse_if_forked(self) -> None:
        """Raises OwnershipLostError in a forked child, which owns nothing."""
        ...

    def life_in(self, conn: Connection, process: str) -> Life: ...

    def register_session(self, conn: Connection, key: str, now_ms: int, home: str | None = None) -> str: ...

    def tell_of_free_slot(self) -> None:
        """Wake whoever waits for a slot, here and in other processes."""
        ...
