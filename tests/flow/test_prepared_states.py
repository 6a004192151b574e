"""As a new operator would: of three states with something wrong, each of `why`, the dashboard and `doctor` names it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.cli.main import run
from holdfast.testing.prepared import MAKERS, NO_SUCH_CHAT, PINNED, SESSION
from holdfast.testing.served import served

CAUSES = {
    "takeover": ("appended by somebody else", "takeover", "lost it to another writer"),
    "silent-pin": ("it does not say who set it", "pin", "it does not say who set it"),
    "dead-letter": ("chat will not take it", "dead_letter", f"chat:{NO_SUCH_CHAT} failed after 1 attempt"),
}
"""What `why` says, of which kind the dashboard's incident is, what `doctor` says."""


@pytest.mark.parametrize("name", list(MAKERS))
async def test_the_cause_is_named_by_why_by_the_dashboard_and_by_doctor(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    input_id = await MAKERS[name](state)
    said, kind, found = CAUSES[name]

    async def told(*words: str) -> Any:
        await asyncio.to_thread(run, ["--state", str(state), "--json", *words])
        return json.loads(capsys.readouterr().out)

    for target in (input_id, SESSION):
        assert said in " ".join(line["text"] for line in (await told("why", target))["lines"])
    assert found in " ".join(one["text"] for one in (await told("doctor"))["findings"])
    assert said in " ".join(str(one) for one in (await told("top"))["incidents"])
    async with (
        served(state) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http,
    ):
        incidents = (await http.get("/api/incidents")).json()["incidents"]
        [mine] = [one for one in incidents if one["kind"] == kind]
        assert (mine["session"], said in mine["text"]) == (SESSION, True)
        assert said in (await http.get(f"/api/why/{mine['why']}")).text
        if kind == "pin":
            [pin] = (await http.get("/api/models")).json()["pins"]
            assert (pin["model"], pin["fault"]) == (PINNED, said)
