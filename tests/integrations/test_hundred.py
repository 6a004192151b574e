"""100 turns of each framework on one session: nothing is lost, each answer stands beside its question."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integrations import hundred

SCENES = ["plain", "fastapi", "pydantic_ai", "langgraph"]
pytestmark = pytest.mark.xdist_group("integrations")  # importing a framework costs seconds: once


@pytest.mark.promise("P1", "P3")
@pytest.mark.parametrize("scene", SCENES)
async def test_a_hundred_turns_eight_at_once_keep_each_answer_beside_its_question(scene: str, state: Path) -> None:
    name = f"tests.integrations.scene_{scene}"
    await hundred.run(name, state)
    await hundred.check(name, state)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", SCENES)
async def test_a_hundred_turns_of_four_processes_keep_each_answer_beside_its_question(scene: str, state: Path) -> None:
    name = f"tests.integrations.scene_{scene}"
    await hundred.in_four_processes(name, state)
    await hundred.check(name, state)
