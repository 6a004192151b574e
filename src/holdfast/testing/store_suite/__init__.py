"""What every store backend has to do alike, as tests: subclass `StoreSuite` and give it a `backend` fixture.

    class TestEmbedded(StoreSuite):
        @pytest.fixture
        def backend(self, tmp_path) -> Backend: ...

Several stores opened on one backend stand for several processes; a process that dies is a real one (`holder.py`).
Nothing here knows of files: what only one backend can promise is tested beside it. Needs pytest with pytest-asyncio in
auto mode. Read `words.py` first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from holdfast.clock import Clock, SystemClock
from holdfast.lane.policy import LaneLimits
from holdfast.store.protocol import Store

PARTS = (
    "accepting",
    "appending",
    "browsing",
    "children",
    "claiming",
    "hearing",
    "histories",
    "keeping",
    "models",
    "outgoing",
    "settling",
    "timers",
    "words",
)
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in PARTS))  # a failed assert says what it compared

from holdfast.testing.store_suite.accepting import AcceptingSuite  # noqa: E402
from holdfast.testing.store_suite.appending import AppendingSuite  # noqa: E402
from holdfast.testing.store_suite.browsing import BrowsingSuite  # noqa: E402
from holdfast.testing.store_suite.children import ChildrenSuite  # noqa: E402
from holdfast.testing.store_suite.claiming import ClaimingSuite  # noqa: E402
from holdfast.testing.store_suite.hearing import HearingSuite  # noqa: E402
from holdfast.testing.store_suite.histories import HistoriesSuite  # noqa: E402
from holdfast.testing.store_suite.keeping import KeepingSuite  # noqa: E402
from holdfast.testing.store_suite.models import ModelsSuite  # noqa: E402
from holdfast.testing.store_suite.outgoing import OutgoingSuite  # noqa: E402
from holdfast.testing.store_suite.settling import SettlingSuite  # noqa: E402
from holdfast.testing.store_suite.timers import TimersSuite  # noqa: E402
from holdfast.testing.store_suite.words import Backend, Opens  # noqa: E402

__all__ = ["Backend", "StoreSuite"]


class StoreSuite(
    AcceptingSuite,
    ClaimingSuite,
    AppendingSuite,
    SettlingSuite,
    OutgoingSuite,
    ModelsSuite,
    TimersSuite,
    ChildrenSuite,
    HearingSuite,
    BrowsingSuite,
    KeepingSuite,
    HistoriesSuite,
):
    """The conformance suite."""

    @pytest.fixture
    async def opens(self, backend: Backend) -> AsyncIterator[Opens]:
        """Opens another store on the state; all are closed at the end."""
        opened: list[Store] = []

        def open_one(
            *, clock: Clock | None = None, limits: LaneLimits | None = None, beat_term_s: float = 90.0
        ) -> Store:
            store = backend.open(clock=clock or SystemClock(), limits=limits or LaneLimits(), beat_term_s=beat_term_s)
            opened.append(store)
            return store

        yield open_one
        for store in opened:
            await store.close()

    @pytest.fixture
    def store(self, opens: Opens) -> Store:
        return opens()
