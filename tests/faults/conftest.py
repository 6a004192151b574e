"""Fixtures for tests with real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.remote import Troupe, troupe


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where a state directory may be made."""
    return tmp_path / "state"


@pytest.fixture
async def processes() -> AsyncIterator[Troupe]:
    async with troupe() as started:
        yield started
