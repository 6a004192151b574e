"""The dashboard: its page, and the routes that tell it what runs, why it waits and what became of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx

from holdfast.errors import ProviderError
from holdfast.gateway.assets import FOLDER
from holdfast.inbound.event import InboundEvent, Route
from holdfast.observe.timeline import Bar, lane_of
from holdfast.observe.trouble import incidents_of
from holdfast.store.views import DeliveryView, Story, Trouble, TurnView
from holdfast.testing.channel import FakeChannel
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.served import Served, served

KEY = "agent:main:main"
HTML = {"accept": "text/html"}


def client_of(gateway: Served) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60)


async def said(gateway: Served, text: str, session: str = KEY, route: Route | None = None) -> str:
    admission = await gateway.hf.accept(InboundEvent(session, {"content": text}, route=route))
    input_id = admission.input_id  # pyright: ignore[reportAttributeAccessIssue]  # it was accepted
    view = await gateway.hf.wait_input(input_id, 20)
    assert view.settled
    return input_id


async def test_the_page_is_for_those_who_are_logged_in_and_names_only_files_that_there_are(tmp_path: Path) -> None:
    async with served(tmp_path / "state") as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        led = await http.get("/", headers=HTML)
        assert (led.status_code, led.headers["location"]) == (303, "/login?next=/")
        page = await http.get("/", headers=gateway.headers)
        assert page.status_code == 200
        policy = page.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        named = re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.text)
        assert len(named) == 3
        scripts = [path for path in named if path.endswith(".js")]
        for script in scripts:
            text = (FOLDER / Path(script).name).read_text()
            named += [f"/assets/{name}" for name in re.findall(r'from "\./([^"]+)"', text)]
        for path in named:
            assert (await http.get(path)).status_code == 200, path


async def test_turns_are_told_with_what_they_were_at(tmp_path: Path) -> None:
    model = ScriptedModel(
        Reply(calls=[("no_such_tool", {})]),
        Reply("done"),
        ProviderError("bad <b>request</b>", status=400),
        Reply("again"),
    )
    channel = FakeChannel(platform=tmp_path / "platform.jsonl")
    async with (
        served(tmp_path / "state", model=model, channels=[channel]) as gateway,
        client_of(gateway) as http,
    ):
        await said(gateway, "one", route=Route("test", "user"))
        await said(gateway, "two", "agent:main:other")
        first = (await http.get("/api/timeline")).json()
        mine, other = first["turns"]
        # On a fast machine all of it falls into one millisecond; in which order it is told is looked at below.
        assert sorted(bar["kind"] for bar in mine["bars"] if bar["kind"] != "sending") == ["model", "model", "tool"]
        assert (mine["session"], mine["state"], mine["lane"]) == (KEY, "answered", "main")
        assert mine["waited_ms"] <= mine["from_ms"] <= mine["until_ms"]
        assert (other["state"], [mark["kind"] for mark in other["marks"]]) == ("failed", ["fallback", "failed"])
        assert "bad <b>request</b>" in other["marks"][0]["text"], "text, which the page never parses"
        later = (await http.get("/api/timeline", params={"since_ms": first["now_ms"] + 1})).json()
        assert later["turns"] == []
        named = {"since_ms": first["now_ms"] + 1, "also": f"{mine['id']},turn_nobody"}
        assert [turn["id"] for turn in (await http.get("/api/timeline", params=named)).json()["turns"]] == [mine["id"]]
        assert (await http.get("/api/timeline", params={"limit": 100_000})).status_code == 400


async def test_what_waits_and_stands_is_told_at_a_glance(tmp_path: Path) -> None:
    async with served(tmp_path / "state") as gateway, client_of(gateway) as http:
        async with gateway.hf.turn(KEY, lane="cron"):
            await gateway.hf.accept(InboundEvent(KEY, {"content": "waits"}))
            now = (await http.get("/api/overview")).json()
            assert (now["waiting"], now["running"], now["held"], now["approvals"]) == (
                {"main": 1},
                {"cron": 1},
                None,
                0,
            )
            assert now["oldest_accepted_ms"] <= now["now_ms"]
            [turn] = now["turns"]
            assert (turn["session"], turn["work"]["pid"]) == (KEY, __import__("os").getpid())
            running = (await http.get("/api/timeline", params={"since_ms": now["now_ms"] + 60_000})).json()["turns"]
            assert [(one["session"], one["state"], one["until_ms"]) for one in running] == [(KEY, "running", None)]
        await gateway.hf.pin_model(KEY, "demo/demo", by="a user")
        models = (await http.get("/api/models")).json()
        assert [(pin["session"], pin["by"]) for pin in models["pins"]] == [(KEY, "a user")]
        assert (await http.get("/api/timers")).json() == {"timers": []}


async def test_a_conversation_is_read_and_its_lines_too(tmp_path: Path) -> None:
    async with (
        served(tmp_path / "state", model=ScriptedModel(Reply("an answer"))) as gateway,
        client_of(gateway) as http,
    ):
        await said(gateway, "<script>alert(1)</script>")
        found = (await http.get(f"/api/sessions/{KEY}/transcript")).json()
        spoken = [(line["role"], line["text"], line["visibility"]) for line in found["lines"] if line["role"]]
        assert spoken == [("user", "<script>alert(1)</script>", "model"), ("assistant", "an answer", "model")]
        raw = (await http.get(f"/api/sessions/{KEY}/transcript", params={"raw": 1, "limit": 1})).json()
        assert raw["more"]
        assert '"an answer"' in raw["lines"][0]["text"]
        assert (await http.get("/api/sessions/agent:main:nobody/transcript")).status_code == 404


async def test_what_was_given_up_is_sent_again_or_dropped_by_the_page(tmp_path: Path) -> None:
    async with (
        served(tmp_path / "state", model=ScriptedModel(Reply("hi"), Reply("ho"))) as gateway,
        client_of(gateway) as http,
    ):
        await said(gateway, "hello", route=Route("nowhere", "user"))
        [one] = (await http.get("/api/outbox")).json()["deliveries"]
        assert (one["route"], one["state"]) == ("nowhere:user", "pending")
        assert (await http.post(f"/api/outbox/{one['id']}/retry", json={})).status_code == 400, "it was not given up"
        dropped: dict[str, Any] = (await http.post(f"/api/outbox/{one['id']}/drop", json={})).json()
        assert dropped["state"] == "dropped"
        assert (await http.get("/api/outbox", params={"state": "dropped"})).json()["deliveries"][0]["id"] == one["id"]
        assert (await http.get("/api/outbox", params={"state": "nonsense"})).status_code == 400
        assert (await http.post("/api/outbox/nothing/drop", json={})).status_code == 404
        assert (await http.post(f"/api/outbox/{one['id']}/burn", json={})).status_code == 400


async def test_what_went_wrong_is_told_newest_first_with_what_to_ask_why_for(tmp_path: Path) -> None:
    refused = ProviderError("bad request", status=400)
    async with (
        served(tmp_path / "state", model=ScriptedModel(refused, Reply("fine"))) as gateway,
        client_of(gateway) as http,
    ):
        input_id = await said(gateway, "one")
        await said(gateway, "two", "agent:main:other")
        await gateway.hf.pin_model(KEY, "demo/demo", by="a user")
        found = (await http.get("/api/incidents")).json()
        kinds = {one["kind"]: one for one in found["incidents"]}
        assert set(kinds) == {"chain_walk", "failed", "pin"}, "what went well is not told of"
        assert found["incidents"] == sorted(found["incidents"], key=lambda one: -one["at_ms"])
        assert (kinds["failed"]["why"], kinds["chain_walk"]["why"]) == (input_id, input_id)
        assert "all models failed" in kinds["chain_walk"]["text"]
        assert "by a user" in kinds["pin"]["text"]
        for one in found["incidents"]:
            assert (await http.get(f"/api/why/{one['why']}")).status_code == 200
        later = await http.get("/api/incidents", params={"since_ms": found["now_ms"] + 60_000})
        assert later.json()["incidents"] == []
        assert (await http.get("/api/incidents", params={"limit": 0})).status_code == 400


def test_what_several_rows_tell_of_one_turn_is_one_incident() -> None:
    def line(seq: int, kind: str, turn: str = "turn_1", **data: Any) -> dict[str, Any]:
        return {"seq": seq, "at_ms": 100 * seq, "session": KEY, "input": None, "turn": turn, "kind": kind, "data": data}

    told = [
        line(1, "turn.window", verdict="foreign_turn", detail="2 lines of p_2"),
        line(2, "turn.salvaged", where="kept.jsonl"),
        line(3, "turn.window", turn="turn_2", verdict="advanced", detail=None),
        line(4, "turn.window", turn="turn_3", verdict="adopted", detail="a label"),
    ]
    lost = TurnView("turn_1", KEY, "main", 1, "p_1", "settled", 50, 250, None, "taken_over", "foreign_turn: 2 lines")
    given_up = DeliveryView("d1", "in_1", "test:user", 0, "failed", 5, "hi", None, 300, 900, "no such user", KEY)
    found = incidents_of(Trouble(told[::-1], [lost], [given_up]), [], since_ms=0, limit=10)
    assert [(one.kind, one.why, one.at_ms) for one in found] == [
        ("dead_letter", "in_1", 900),
        ("takeover", "turn_1", 250),
    ]
    assert "2 lines of p_2" in found[1].text
    assert "kept.jsonl" in found[1].text
    assert "no such user" in found[0].text
    assert len(incidents_of(Trouble(told[::-1], [lost], [given_up]), [], since_ms=0, limit=1)) == 1


def test_what_goes_on_has_no_end_and_what_was_cut_off_ends_with_its_turn() -> None:
    def story(ended_ms: int | None, *events: tuple[int, str, dict[str, Any]]) -> Story:
        view = TurnView("turn_1", KEY, "main", 1, "p_1", "ended" if ended_ms else "running", 100, ended_ms)
        return Story(view, 50, [{"at_ms": at, "kind": kind, "data": data} for at, kind, data in events])

    asked = (110, "turn.model", {"model": "demo/demo", "step": 1})
    call = (120, "turn.tool_call", {"id": "c1", "name": "exec"})
    assert lane_of(story(None, asked)).bars == [Bar("model", 110, None, "demo/demo")]
    assert lane_of(story(200, asked)).bars == [Bar("model", 110, 200, "demo/demo")]
    both = lane_of(story(None, asked, (115, "turn.answer", {"model": "demo/demo", "finish": "stop"}), call)).bars
    assert both == [Bar("model", 110, 115, "demo/demo"), Bar("tool", 120, None, "exec")]
    at_once = lane_of(
        story(
            None, asked, (115, "turn.answer", {"model": "demo/demo", "finish": "toolUse"}), (115, *call[1:]),
            (115, "turn.tool_result", {"id": "c1", "name": "exec"}), (115, *asked[1:]),
        )
    ).bars  # fmt: skip
    assert [(bar.kind, bar.until_ms) for bar in at_once] == [("model", 115), ("tool", 115), ("model", None)]
    sent = {"channel": "test", "target": "user", "part": 0, "event": "start", "detail": None}
    lane = lane_of(story(200, (210, "delivery", sent), (230, "delivery", {**sent, "event": "confirm"})))
    assert lane.bars == [Bar("sending", 210, 230, "test:user: confirm")]
    window = {"verdict": "foreign_turn", "detail": "of process p_2"}
    marked = lane_of(
        story(200, (150, "turn.window", window), (160, "turn.window", {"verdict": "advanced", "detail": ""}))
    )
    assert [(mark.kind, mark.at_ms) for mark in marked.marks] == [("takeover", 150)]
