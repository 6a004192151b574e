"""Frameworks whose pins do not go with ours, each in its own environment, with the real package (see `beside.py`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integrations import beside

pytestmark = [pytest.mark.xdist_group("beside"), pytest.mark.timeout(600)]


@pytest.mark.promise("P1", "P3")
def test_openai_agents_keeps_its_promises_over_our_sessions(tmp_path: Path) -> None:
    beside.run("agents", ["beside_openai_agents"], tmp_path, "-m", "not long")


@pytest.mark.long
def test_openai_agents_keeps_its_promises_in_four_processes(tmp_path: Path) -> None:
    beside.run("agents", ["beside_openai_agents"], tmp_path, "-m", "long")
