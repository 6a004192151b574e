"""`holdfast top`: what it shows of a state, on Textual's own pilot and without a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from textual.widgets import DataTable, Static

from holdfast.cli.main import run
from holdfast.cli.settings import Settings
from holdfast.cli.top_screen import Top
from holdfast.errors import ProviderError
from holdfast.inbound.event import InboundEvent, Route
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.served import Served, served

if TYPE_CHECKING:
    import pytest
    from textual.pilot import Pilot

BUSY, QUIET = "agent:main:busy", "agent:main:[bold]quiet[/]"
WAIT_S = 30.0


async def accepted(gateway: Served, text: str, session: str, route: Route | None = None) -> str:
    admission = await gateway.hf.accept(InboundEvent(session, {"content": text}, route=route))
    return admission.input_id  # pyright: ignore[reportAttributeAccessIssue]  # it was accepted


@asynccontextmanager
async def busy(state: Path) -> AsyncIterator[tuple[Served, ScriptedModel, str]]:
    """A gateway with a session that failed, one that is asked a model, and a message that waits behind it."""
    model = ScriptedModel(ProviderError("[red]no[/red] such thing", status=400), otherwise=lambda _: Reply("done"))
    async with served(state, model=model) as gateway:
        failed = await accepted(gateway, "one", QUIET, Route("nowhere", "user"))
        assert (await gateway.hf.wait_input(failed, WAIT_S)).state == "failed"
        model.hold()
        await accepted(gateway, "two", BUSY)
        await asyncio.wait_for(model.asked(2), WAIT_S)
        waits = await accepted(gateway, "three", BUSY)
        yield gateway, model, waits
        model.release()


async def seen(pilot: Pilot[None], what: str) -> str:
    """The text of the screen once it has `what` in it."""
    text = ""
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                table = pilot.app.query_one("#table", DataTable)
                rows = [" ".join(str(cell) for cell in table.get_row_at(index)) for index in range(table.row_count)]
                parts = [str(pilot.app.query_one(f"#{name}", Static).render()) for name in ("head", "fault", "story")]
                text = "\n".join([*parts, *rows])
                if what in text:
                    return text
                await pilot.pause(0.02)
    except TimeoutError:
        raise AssertionError(f"{what!r} is not shown:\n{text}") from None


async def test_the_screen_shows_who_works_and_why_and_stops_what_is_asked_twice(tmp_path: Path) -> None:
    async with busy(tmp_path / "state") as (gateway, _, waits):
        top = Top(Settings(state_given=str(tmp_path / "state")), every_s=1.0)
        async with top.run_test(size=(140, 40)) as pilot:
            text = await seen(pilot, BUSY)
            assert "1 running · 1 waiting" in text
            assert QUIET in text, "as it was written, not as markup"
            assert str(gateway.hf.process_id)[:14] in text
            await pilot.press("enter")
            assert "took the session" in await seen(pilot, "asked demo/demo (step 1)")
            await pilot.press("escape", "6")
            assert "[red]no[/red] such thing" in await seen(pilot, "chain walk")
            await pilot.press("slash", *"ch", "enter")
            await pilot.press("w")
            await seen(pilot, "ended as failed")
            await pilot.press("escape", "4")
            assert "pending" in await seen(pilot, "nowhere:user")
            await pilot.press("2")
            await seen(pilot, waits[:18])
            await pilot.press("s")
            await seen(pilot, "press s again")
            assert (await gateway.hf.input(waits)).state == "queued"
            await pilot.press("s")
            await seen(pilot, f"{waits}: cancelled")
            await pilot.press("p")
            assert "[paused]" in await seen(pilot, "[paused]")
            for key in ("3", "5", "1"):
                await pilot.press(key)
            await pilot.press("q")
        assert (await gateway.hf.input(waits)).state == "cancelled"


async def test_without_a_terminal_one_look_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = str(tmp_path / "state")
    async with busy(tmp_path / "state") as (_, _, waits):
        assert await asyncio.to_thread(run, ["--state", state, "top"]) == 0
        text = capsys.readouterr().out
        assert "1 running · 1 waiting" in text
        assert waits[:18] in text
        assert await asyncio.to_thread(run, ["--state", state, "top", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["held"] is None
        assert [(one["session"], one["lane"]) for one in found["sessions"] if one["lane"]] == [(BUSY, "main")]
        assert {one["what"] for one in found["incidents"]} == {"chain walk", "failed"}


async def test_a_state_that_is_not_there_is_refused_with_a_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(run, ["--state", str(tmp_path / "none"), "top", "--once"]) == 1
    assert "no state at" in capsys.readouterr().err


def test_without_its_package_the_way_out_is_named(tmp_path: Path) -> None:
    program = "import sys; sys.modules['textual'] = None; from holdfast.cli.main import main; main(['top'])"
    ours, theirs = os.openpty()
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True,
            timeout=WAIT_S, check=False, env={**os.environ, "HOLDFAST_STATE": str(tmp_path)},
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert (ended.returncode, "pip install 'holdfast[top]'" in ended.stderr) == (1, True), ended.stderr
