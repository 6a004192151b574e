"""The issue graph end to end: a real server that stands in for GitHub, the real command in processes of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

import holdfast
import holdfast_issue_graph
from holdfast_issue_graph.cli import DEMO, Wish, fulfil, main
from holdfast_issue_graph.explore import Progress, explore
from holdfast_issue_graph.github import AbsentError, GitHub, GitHubError, LimitedError
from holdfast_issue_graph.graph import Graph, Limits
from holdfast_issue_graph.page import app_of
from holdfast_issue_graph.refs import Ref, parse_start
from tests.platforms.github_reading import ReadingStandIn, reading_stand_in

HOME = Path(holdfast_issue_graph.__file__).parent
ANSWERS = json.loads((HOME / "demo.json").read_bytes())["answers"]
START = parse_start(DEMO)
FIRST = f"/repos/{START.owner}/{START.repo}/issues/{START.number}"


def reader(server: ReadingStandIn, state: Path | None = None, **options: Any) -> GitHub:
    async def at_once(_: float) -> None: ...

    return GitHub(api_url=server.url, cache=state / "answers" if state else None, sleep=at_once, **options)


async def explored(server: ReadingStandIn, state: Path, **options: Any) -> tuple[Graph, GitHub]:
    github = reader(server, state, **options)
    try:
        async with holdfast.open(state / "sessions") as hf:
            return await explore(hf, github, START, Limits()), github
    finally:
        await github.close()


async def test_a_page_that_is_unchanged_does_not_hide_the_one_behind_it(tmp_path: Path) -> None:
    for size, full in ((100, 100), (50, 150)):
        listed: list[Any] = [{"id": at} for at in range(full)]
        async with reading_stand_in({"/list": {"body": listed}}, page_size=size) as server:
            github = reader(server, tmp_path / str(size))
            assert len(await github.pages("/list")) == full
            listed.append({"id": full})
            assert len(await github.pages("/list")) == full + 1
            assert github.unchanged >= full // size - 1
            await github.close()


async def test_what_is_read_once_is_asked_for_again_by_its_tag_only(tmp_path: Path) -> None:
    async with reading_stand_in(ANSWERS) as server:
        first, _ = await explored(server, tmp_path)
        assert sorted(item.ref for item in first.items.values()) == [
            f"harbor-works/tide#{n}" for n in (17, 18, 41, 43, 44, 45)
        ]
        asked = len(server.asked)
        again, github = await explored(server, tmp_path)
        assert again == first
        assert github.unchanged == sum(status == 304 for _, status in server.asked[asked:]) == 18
    offline = GitHub(api_url=server.url, cache=tmp_path / "answers", offline=True)
    async with holdfast.open(tmp_path / "sessions") as hf:
        assert (await explore(hf, offline, START, Limits())).items == first.items
    assert {oct(file.stat().st_mode & 0o777) for file in (tmp_path / "answers").iterdir()} == {"0o600"}


async def test_pages_are_followed_on_this_host_and_no_further_than_asked(tmp_path: Path) -> None:
    path = f"{FIRST}/comments"
    answers = {path: {"body": [{"id": number} for number in range(7)]}}
    async with reading_stand_in(answers, page_size=3) as server:
        github = reader(server)
        assert [one["id"] for one in await github.pages(path)] == list(range(7))
        assert [one["id"] for one in await github.pages(path, pages_max=2)] == list(range(6))
        server.fault(path, 301, location="http://127.0.0.2/elsewhere")
        with pytest.raises(AbsentError, match="another host"):
            await github.get(path)
        await github.close()


async def test_faults_and_limits_are_waited_out_within_reason(tmp_path: Path) -> None:
    async with reading_stand_in(ANSWERS) as server:
        github = reader(server, token="t0ken", now=lambda: 1000.0)
        server.fault(FIRST, 502)
        server.fault(FIRST, 429, retry_after="3")
        server.fault(FIRST, 403, x_ratelimit_remaining="0", x_ratelimit_reset="1010")
        assert (await github.get(FIRST))["number"] == START.number
        assert [status for _, status in server.asked] == [502, 429, 403, 200]
        assert {headers["authorization"] for headers in server.headers} == {"Bearer t0ken"}
        server.fault(FIRST, 403, x_ratelimit_remaining="0", x_ratelimit_reset="4600")
        with pytest.raises(LimitedError, match="3600 s"):
            await github.get(FIRST)
        for _ in range(4):
            server.fault(FIRST, 500)
        with pytest.raises(GitHubError, match="run it again"):
            await github.get(FIRST)
        server.fault(FIRST, 401)
        with pytest.raises(AbsentError, match="GITHUB_TOKEN"):
            await github.get(FIRST)
        await github.close()


async def test_a_killed_exploration_goes_on_where_it_was_and_a_second_one_is_told_who_is_at_it(tmp_path: Path) -> None:
    path = "/repos/harbor-works/tide/issues/43"
    async with reading_stand_in(ANSWERS) as server:
        command = [
            sys.executable,
            "-m",
            "holdfast_issue_graph",
            DEMO,
            "--state",
            str(tmp_path),
            "--api-url",
            server.url,
        ]
        env = {**os.environ, "PYTHONPATH": str(HOME.parent), "GITHUB_TOKEN": ""}
        server.holds[path] = asyncio.Event()
        killed = await asyncio.create_subprocess_exec(*command, env=env, stderr=asyncio.subprocess.DEVNULL)
        async with asyncio.timeout(100):
            await server.reached.wait()
        with pytest.raises(holdfast.SessionBusyError):
            await explored(server, tmp_path)
        killed.kill()
        await killed.wait()
        before = len(server.asked)
        server.holds.pop(path).set()
        seen: list[Progress] = []
        wish = Wish(START, Limits(), tmp_path, api_url=server.url)
        result = await fulfil(wish, seen.append, lambda _: None)
        assert (seen[0].read, seen[0].resumed, seen[0].doing) == (3, 3, "harbor-works/tide#43")
        assert FIRST in [asked for asked, _ in server.asked[:before]]
        assert FIRST not in [asked for asked, _ in server.asked[before:]]
    assert len(result.graph.items) == 6
    assert "fixes [harbor-works/tide#41]" in result.report


def test_the_command_writes_three_files_and_says_what_is_wrong(tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, [*arguments, "--state", str(tmp_path / "state")])

    told = run("--demo", "--out", str(tmp_path / "out"), "--json", "--record", str(tmp_path / "again.json"))
    assert told.exit_code == 0, told.output
    assert len(json.loads(told.stdout)["items"]) == 6
    assert (tmp_path / "out" / "graph.svg").read_text().startswith("<svg ")
    assert "## Open ends" in (tmp_path / "out" / "report.md").read_text()
    again = run(DEMO, "--recording", str(tmp_path / "again.json"), "--out", str(tmp_path / "again"))
    assert again.exit_code == 0
    assert (tmp_path / "again" / "report.md").read_text() == (tmp_path / "out" / "report.md").read_text()
    (tmp_path / "file").write_text("{}")
    for arguments, words in (
        (["nonsense"], "owner/repo#12"),
        ([], "--demo"),
        ([DEMO, "--recording", str(tmp_path / "file")], "is no recording"),
        (["--demo", "--out", str(tmp_path / "file")], "name another folder with --out"),
        ([DEMO, "--offline", "--out", str(tmp_path / "none")], "1 could not be read"),
    ):
        refused = run(*arguments)
        assert refused.exit_code in (1, 2)
        assert words in " ".join(refused.output.split()), refused.output


async def test_the_page_takes_an_address_from_its_own_form_and_shows_what_came_of_it(tmp_path: Path) -> None:
    wish = Wish(Ref("o", "r", 1), Limits(), tmp_path, recording=ANSWERS)
    app = app_of(wish, "127.0.0.1:8123")
    transport = httpx.ASGITransport(app=app)
    ours = {"origin": "http://127.0.0.1:8123"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8123") as http:
        assert "script-src 'self'" in (await http.get("/")).headers["content-security-policy"]
        assert (await http.get("/page.js")).status_code == (await http.get("/page.css")).status_code == 200
        assert (await http.get("/other.js")).status_code == 404
        assert (await http.get("/", headers={"host": "evil.example"})).status_code == 421
        assert (await http.post("/explore", json={"url": DEMO})).status_code == 403
        assert (
            await http.post("/explore", json={"url": DEMO}, headers={"origin": "http://evil.example"})
        ).status_code == 403
        refused = await http.post("/explore", json={"url": "nonsense"}, headers=ours)
        assert (refused.status_code, "owner/repo#12" in refused.json()["error"]) == (400, True)
        assert (await http.post("/explore", content=b"[", headers=ours)).status_code == 400
        assert (await http.post("/explore", content=b"x" * 5_000, headers=ours)).status_code == 413
        begun = await http.post("/explore", json={"url": DEMO}, headers=ours)
        job = begun.json()["job"]
        async with asyncio.timeout(60):
            while (view := (await http.get(f"/jobs/{job}")).json())["state"] == "running":  # noqa: ASYNC110  # as a page does
                await asyncio.sleep(0.02)
        assert (view["state"], view["error"]) == ("done", "")
        assert "## Open ends" in view["report"]
        drawn = await http.get(f"/jobs/{job}/graph.svg")
        assert "sandbox" in drawn.headers["content-security-policy"]
        assert (await http.get(f"/jobs/{job}/graph.json")).json()["start"] == DEMO
        assert (await http.get(f"/jobs/{job}/secrets")).status_code == 404
        assert (await http.get("/jobs/none")).status_code == 404
