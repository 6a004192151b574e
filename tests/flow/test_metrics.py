"""Numbers for Prometheus and spans for OpenTelemetry tell what has happened, and cost a turn neither its answer nor its
order.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

import holdfast.observe.metrics as metrics_module
import holdfast.observe.tracing as tracing_module
from holdfast.errors import InputError, ProviderError
from holdfast.gateway.log import JsonFormatter
from holdfast.model.client import ToolSpec
from holdfast.observe.metrics import OTHER, Metrics, Names
from holdfast.observe.tracing import Spans, trace_id_of, tracing
from holdfast.session.entries import user
from holdfast.store.embedded.kernel_lock import KernelLock
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.served import served
from holdfast.testing.world import World
from holdfast.tool.gate import GateSettings
from holdfast.turn.events import KINDS, EventBus, TurnEvent
from holdfast.turn.runner import AgentSettings
from holdfast.turn.tools import Tool, ToolCall

KEY = "agent:main:main"
USED = {"input": 100, "output": 20, "cacheRead": 50, "cacheWrite": 10}
DEPLOY = Path(__file__).parents[2] / "deploy"


def numbers(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples of the text format, by name and labels, parsed by Prometheus's own client."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def one(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float | None:
    return found.get((f"holdfast_{name}", frozenset(labels.items())))


async def test_what_a_conversation_did_is_read_by_prometheus(tmp_path: Path) -> None:
    model = ScriptedModel(
        ProviderError("busy", status=429), Reply(calls=[("no_such_tool", {})], usage=USED), Reply("done", usage=USED)
    )
    agent = AgentSettings("scripted/model", fallbacks=("scripted/other",))
    async with World(tmp_path, model=model, agent=agent) as world:
        metrics = Metrics(world.hf)
        with metrics.hear():
            view = await world.settled(await world.inbound(KEY, "hello"))
            await world.saw("done")
            await world.idle()
        assert view.state == "answered"
        found = numbers((await metrics.render()).decode())
        world.clock.set_wall_clock(86_400)
        later = numbers((await metrics.render()).decode())
    assert one(later, "model_cooldowns") == 0, "it has ended, and nobody is to be woken for it"
    assert one(found, "inputs_accepted_total", source="world", lane="main") == 1
    assert one(found, "turns_settled_total", lane="main", state="answered") == 1
    assert one(found, "queue_wait_seconds_count", lane="main") == 1
    assert one(found, "turn_seconds_count", lane="main") == 1
    assert one(found, "prompt_window_seconds_count", verdict="unchanged") == 2
    failed = {"model": "scripted/model", "purpose": "answer", "state": "failed", "reason": "rate_limit"}
    assert one(found, "model_calls_total", **failed) == 1
    assert one(found, "model_tokens_total", model="scripted/other", kind="cache_read") == 100
    assert one(found, "fallback_decisions_total", decision="candidate_failed", reason="rate_limit") == 1
    assert one(found, "tool_calls_total", tool="no_such_tool", error="true") == 1
    assert one(found, "deliveries_total", channel="test", event="confirm") == 2, "the answer, and who gave it"
    assert one(found, "model_cooldowns") == 1
    assert one(found, "inputs_oldest_seconds") == 0
    assert one(found, "work_held") == 0


async def test_what_waits_in_the_state_is_told_by_any_gateway_to_whoever_has_the_token(tmp_path: Path) -> None:
    async with served(tmp_path / "state") as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
        assert (await client.get("/metrics")).status_code == 401
        async with gateway.hf.turn("agent:main:busy", lane="cron"):
            reply = await client.get("/metrics", headers=gateway.headers)
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = numbers(reply.text)
        assert one(found, "turns_running", lane="cron") == 1
        version = next(dict(labels)["version"] for name, labels in found if name == "holdfast_build_info")
        assert version in reply.text
        assert ("process_resident_memory_bytes", frozenset()) in found


async def test_a_wait_for_a_lock_that_another_holds_is_measured(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        metrics = Metrics(world.hf)
        with metrics.hear():
            async with world.hf.turn(KEY) as turn:
                await turn.append(user("first"))
                fd = os.open(turn.transcript.path, os.O_RDWR)
                other = KernelLock(fd)
                assert other.try_acquire()
                threading.Timer(0.05, other.release).start()
                await turn.append(user("second"))
                os.close(fd)
        found = numbers((await metrics.render()).decode())
    assert (one(found, "write_lock_wait_seconds_count") or 0) >= 1


def test_labels_that_others_choose_are_bounded() -> None:
    names = Names(2)
    assert [names(name) for name in ("a", "b", "c", "a", "", None)] == ["a", "b", OTHER, "a", "none", "none"]


def test_a_listener_that_fails_takes_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    bus, heard = EventBus(), list[str]()

    def broken(_: TurnEvent) -> None:
        raise RuntimeError("counting failed")

    with (
        bus.listening(broken, ["turn.started"]),
        bus.listening(lambda event: heard.append(event.kind), ["turn.started"]),
    ):
        assert bus.wants("turn.started")
        assert not bus.wants("turn.delta"), "nobody makes an event for each piece of text because somebody counts turns"
        bus.publish(TurnEvent("turn.started", KEY, 0))
    assert heard == ["turn.started"]
    assert "counting failed" in caplog.text
    assert not bus.wants("turn.started")


async def test_dashboard_and_alerts_ask_for_numbers_that_there_are(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        help_lines = re.findall(r"# HELP (holdfast_\w+)", (await Metrics(world.hf).render()).decode())
    made = {name.removesuffix("_total") for name in help_lines}
    for path in (DEPLOY / "grafana" / "holdfast.json", DEPLOY / "prometheus" / "alerts.yml"):
        asked = set(re.findall(r"\bholdfast_\w+", path.read_text()))
        known = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in asked}
        assert known, path
        assert known <= made, (path, known - made)
    panels = json.loads((DEPLOY / "grafana" / "holdfast.json").read_text())["panels"]
    assert len(panels) >= 8
    import yaml

    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    assert all({"alert", "expr", "labels", "annotations"} <= set(rule) for rule in rules)


# ── spans ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_turn_is_a_trace_of_steps_calls_windows_and_tools(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    model = ScriptedModel(Reply(calls=[("no_such_tool", {})], usage=USED), Reply("done", usage=USED))
    async with World(tmp_path, model=model) as world:
        with Spans(world.hf, provider.get_tracer("test")).hear():
            view = await world.settled(await world.inbound(KEY, "a secret word"))
            await world.saw("done")
            await world.idle()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    names = sorted(span.name for span in exporter.get_finished_spans())
    assert names == sorted(
        ["invoke_agent main", "step 1", "step 2", "chat model", "chat model", "prompt_window", "prompt_window",
         "execute_tool no_such_tool", "send test"]
    )  # fmt: skip
    turn = spans["invoke_agent main"]
    told = dict(turn.attributes or {})
    assert told["gen_ai.conversation.id"] == KEY
    assert (told["holdfast.input"], told["holdfast.turn"], told["holdfast.outcome"]) == (
        view.id, view.turn_id, "answered",
    )  # fmt: skip
    assert _parent(spans["step 2"]) == turn.get_span_context().span_id
    assert _parent(spans["chat model"]) == spans["step 2"].get_span_context().span_id
    assert _parent(spans["execute_tool no_such_tool"]) == spans["step 1"].get_span_context().span_id
    assert dict(spans["chat model"].attributes or {})["gen_ai.usage.input_tokens"] == 160
    assert dict(spans["chat model"].attributes or {})["gen_ai.response.finish_reasons"] == ("stop",)
    assert not spans["execute_tool no_such_tool"].status.is_ok
    assert spans["send test"].links[0].context.trace_id == turn.get_span_context().trace_id
    assert "a secret word" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def _parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


async def test_log_lines_name_the_turn_and_its_trace(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    handler, logger = Keeping(), logging.getLogger("holdfast.test")
    logger.addHandler(handler)
    try:
        async with World(tmp_path) as world:
            with Spans(world.hf, TracerProvider().get_tracer("test")).hear():
                async with world.hf.turn(KEY) as turn:
                    trace = trace_id_of(turn.id)
                    logger.warning("inside")
            logger.warning("outside")
    finally:
        logger.removeHandler(handler)
    assert trace is not None
    assert [(line.get("turn"), line.get("trace_id")) for line in lines] == [(turn.id, trace), (None, None)]
    assert trace_id_of(turn.id) is None, "nothing is kept of turns that have ended"


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector on loopback that keeps what it is sent."""
    got: list[ExportTraceServiceRequest] = []

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            import gzip

            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    server = HTTPServer(("127.0.0.1", 0), Takes)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_spans_go_to_the_collector_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(tmp_path) as world:
        with collector() as (url, got):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
            with tracing(world.hf):
                await world.settled(await world.inbound(KEY, "hello"))
                await world.idle()
        names = {
            span.name
            for one in got
            for found in one.resource_spans
            for scope in found.scope_spans
            for span in scope.spans
        }
        assert {"invoke_agent main", "step 1", "chat model", "prompt_window"} <= names
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        with tracing(world.hf):
            assert not world.hf.events.wants("turn.model")


def test_what_is_missing_for_traces_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    bus: object = None  # it is not asked for before
    with pytest.raises(InputError, match="holdfast\\[telemetry\\]"), tracing(bus, {"OTEL_TRACES_EXPORTER": "otlp"}):  # pyright: ignore[reportArgumentType]
        pass


async def test_questions_to_people_are_counted_with_what_became_of_them(tmp_path: Path) -> None:
    async def act(call: ToolCall) -> str:
        return f"acted on {call.arguments}"

    model = ScriptedModel(Reply(calls=[("act", {"x": 1})]), Reply(calls=[("act", {"x": 2})]), "done")
    tools = [Tool(ToolSpec("act", "Acts.", {"type": "object"}), act)]
    async with World(tmp_path, model=model, tools=tools, gate=GateSettings(), commands=True) as world:
        metrics = Metrics(world.hf)
        with metrics.hear():
            asked = await world.inbound(KEY, "please act")
            for answer in ("approve", "deny"):
                await world.saw("May this run?", times=1 if answer == "approve" else 2)
                [question] = await world.hf.approvals(pending=True)
                assert one(numbers((await metrics.render()).decode()), "approvals_waiting") == 1
                await world.inbound(KEY, f"/{answer} {question.id}")
            await world.settled(asked)
        found = numbers((await metrics.render()).decode())
    told = {event: one(found, "approvals_total", event=event) for event in ("asked", "approved", "denied")}
    assert told == {"asked": 2, "approved": 1, "denied": 1}


def test_what_is_listened_for_is_what_turns_tell() -> None:
    listening = re.compile(r'^            "((?:turn|session|input|delivery)[\w.]*)": ', re.MULTILINE)
    for module in (metrics_module, tracing_module):
        assert module.__file__ is not None
        heard = set(listening.findall(Path(module.__file__).read_text()))
        assert len(heard) > 8
        assert heard <= set(KINDS), module.__name__
