"""The embedded store does what every store does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.clock import Clock
from holdfast.lane.policy import LaneLimits
from holdfast.store.embedded.core import StoreOptions
from holdfast.store.embedded.store import EmbeddedStore
from holdfast.store.protocol import Store
from holdfast.testing.store_suite import Backend, StoreSuite


@dataclass(frozen=True, slots=True)
class StateFolder:
    path: Path

    @property
    def location(self) -> str:
        return str(self.path)

    def open(self, *, clock: Clock, limits: LaneLimits, beat_term_s: float) -> Store:
        return EmbeddedStore.open(self.path, clock, StoreOptions(limits=limits, beat_term_s=beat_term_s))


class TestEmbedded(StoreSuite):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return StateFolder(tmp_path / "state")
