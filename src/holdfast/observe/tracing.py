"""Spans for OpenTelemetry, from what turns tell of themselves: a turn, in it steps, in those model calls, the prompt
window and tools; deliveries are spans of their own, linked to the turn whose answer they carry.

Names and attributes follow the semantic conventions for generative AI (`invoke_agent`, `chat`, `execute_tool`), ours
begin with `holdfast.`. Made of events, spans cost a turn nothing where nobody listens, and never change what it does.
Texts of messages are never in them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.errors import InputError
from holdfast.kernel import Holdfast
from holdfast.model.usage import Tokens
from holdfast.session.key import parse_key
from holdfast.turn.events import TurnEvent
from holdfast.version import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext, Tracer

OPEN_MAX = 10_000
ENDED_FOR_LINKS_MAX = 10_000
WANTED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
"""Any of them set: spans are made and sent, by the usual variables of OpenTelemetry."""
_trace_ids: dict[str, str] = {}  # of turns that run


def trace_id_of(turn: str) -> str | None:
    """The trace of a turn that runs, 32 hexadecimal digits, for log lines; None: there is none."""
    return _trace_ids.get(turn)


@contextmanager
def tracing(hf: Holdfast, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """Make and send spans until left, if the environment asks for it.

    Raises:
        InputError: it does, and the packages are not there.
    """
    env = os.environ if env is None else env
    if not any(env.get(name) for name in WANTED) or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield
        return
    if env.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        yield  # "none", or somebody else's
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as missing:
        raise InputError(
            f"the environment asks for traces, which need the package {missing.name}: install holdfast[telemetry], or"
            " set OTEL_SDK_DISABLED=true"
        ) from missing
    name = env.get("OTEL_SERVICE_NAME", "holdfast")
    provider = TracerProvider(resource=Resource.create({"service.name": name, "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        with Spans(hf, provider.get_tracer("holdfast", __version__)).hear():
            yield
    finally:
        provider.shutdown()


@dataclass(slots=True)
class _Open:
    """A turn and what is under way in it."""

    turn: Span
    step: Span | None = None
    window: Span | None = None
    calls: dict[str, Span] = field(default_factory=dict)
    tools: dict[str, Span] = field(default_factory=dict)


class Spans:
    """From events to spans of one tracer. `hear` until left; what is open then is ended."""

    def __init__(self, hf: Holdfast, tracer: Tracer) -> None:
        self._hf = hf
        self._tracer = tracer
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._sending: OrderedDict[str, Span] = OrderedDict()
        self._answered_in: OrderedDict[str, SpanContext] = OrderedDict()  # by input
        self._hearing: Mapping[str, Callable[[TurnEvent, dict[str, Any]], None]] = {
            "turn.started": self._on_started,
            "turn.model": self._on_model,
            "turn.window_opened": self._on_window_opened,
            "turn.window_closed": self._on_window_closed,
            "turn.call_began": self._on_call_began,
            "turn.call_ended": self._on_call_ended,
            "turn.fallback": self._on_fallback,
            "turn.tool_call": self._on_tool_call,
            "turn.tool_result": self._on_tool_result,
            "turn.settled": self._on_settled,
            "delivery": self._on_delivery,
        }

    @contextmanager
    def hear(self) -> Iterator[None]:
        try:
            with self._hf.events.listening(self._on_event, self._hearing):
                yield
        finally:
            for turn in list(self._open):
                self._end_turn(turn, None)
            for span in self._sending.values():
                span.end()

    def _on_event(self, event: TurnEvent) -> None:
        self._hearing[event.kind](event, event.data)

    def _begin(self, name: str, event: TurnEvent, parent: Span | None, **attributes: Any) -> Span:
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        within = set_span_in_context(parent, Context()) if parent is not None else Context()
        known = {name: value for name, value in attributes.items() if value is not None}
        return self._tracer.start_span(name, within, attributes=known, start_time=_ns(event))

    def _on_started(self, event: TurnEvent, data: dict[str, Any]) -> None:
        agent = parse_key(event.session).agent
        span = self._begin(
            f"invoke_agent {agent}", event, None,
            **{"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": agent,
               "gen_ai.conversation.id": event.session, "holdfast.turn": event.turn_id,
               "holdfast.input": event.input_id, "holdfast.lane": data["lane"], "holdfast.epoch": data["epoch"],
               "holdfast.attempt": data["attempt"], "holdfast.waited_ms": data["waited_ms"]},
        )  # fmt: skip
        turn = event.turn_id or ""
        self._open[turn] = _Open(span)
        _trace_ids[turn] = f"{span.get_span_context().trace_id:032x}"
        if len(self._open) > OPEN_MAX:
            self._end_turn(next(iter(self._open)), None)

    def _on_model(self, event: TurnEvent, data: dict[str, Any]) -> None:
        found = self._open.get(event.turn_id or "")
        if found is None:
            return
        self._end_step(found, event)
        found.step = self._begin(f"step {data['step']}", event, found.turn, **{"holdfast.step": data["step"]})

    def _on_window_opened(self, event: TurnEvent, _: dict[str, Any]) -> None:
        found = self._open.get(event.turn_id or "")
        if found is not None:
            found.window = self._begin("prompt_window", event, found.step or found.turn)

    def _on_window_closed(self, event: TurnEvent, data: dict[str, Any]) -> None:
        found = self._open.get(event.turn_id or "")
        if found is None or found.window is None:
            return
        found.window.set_attribute("holdfast.verdict", data["verdict"])
        if data["detail"]:
            found.window.set_attribute("holdfast.detail", data["detail"])
        found.window.end(_ns(event))
        found.window = None

    def _on_call_began(self, event: TurnEvent, data: dict[str, Any]) -> None:
        found = self._open.get(event.turn_id or "")
        if found is None:
            return
        provider, _, model = data["model"].partition("/")
        found.calls[data["id"]] = self._begin(
            f"chat {model}", event, found.step or found.turn,
            **{"gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": model,
               "gen_ai.conversation.id": event.session, "holdfast.purpose": data["purpose"]},
        )  # fmt: skip

    def _on_call_ended(self, event: TurnEvent, data: dict[str, Any]) -> None:
        found = self._open.get(event.turn_id or "")
        span = found.calls.pop(data["id"], None) if found is not None else None
        if span is None:
            return
        tokens: Tokens = data["tokens"]
        span.set_attributes(
            {"gen_ai.usage.input_tokens": tokens.read, "gen_ai.usage.output_tokens": tokens.output,
             "gen_ai.usage.cache_read.input_tokens": tokens.cache_read,
             "gen_ai.usage.cache_creation.input_tokens": tokens.cache_write}
        )  # fmt: skip
        if data["finish"] is not None:
            span.set_attribute("gen_ai.response.finish_reasons", [data["finish"]])
        if data["state"] != "done":
            _fail(span, data["reason"] or data["state"])
        span.end(_ns(event))

    def _on_fallback(self, event: TurnEvent, data: dict[str, Any]) -> None:
        found = self._open.get(event.turn_id or "")
        if found is not None:
            told = {
                f"holdfast.{name}": str(data[name]) for name in ("decision", "candidate", "reason") if data.get(name)
            }
            (found.step or found.turn).add_event("fallback", told, _ns(event))

    def _on_tool_call(self, event: TurnEvent, data: dict[str, Any]) -> None:
        found = self._open.get(event.turn_id or "")
        if found is not None:
            found.tools[data["id"]] = self._begin(
                f"execute_tool {data['name']}", event, found.step or found.turn,
                **{"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": data["name"],
                   "gen_ai.tool.call.id": data["id"]},
            )  # fmt: skip

    def _on_tool_result(self, event: TurnEvent, data: dict[str, Any]) -> None:
        found = self._open.get(event.turn_id or "")
        span = found.tools.pop(data["id"], None) if found is not None else None
        if span is not None:
            if data["is_error"]:
                _fail(span, "tool_error")
            span.end(_ns(event))

    def _on_settled(self, event: TurnEvent, data: dict[str, Any]) -> None:
        turn = event.turn_id or ""
        found = self._open.get(turn)
        if found is None:
            return
        found.turn.set_attribute("holdfast.outcome", data["state"])
        if data["state"] in ("failed", "taken_over"):
            _fail(found.turn, data["state"])
        if event.input_id is not None:
            _keep(self._answered_in, event.input_id, found.turn.get_span_context(), ENDED_FOR_LINKS_MAX)
        self._end_turn(turn, event)

    def _on_delivery(self, event: TurnEvent, data: dict[str, Any]) -> None:
        if data["event"] == "start":
            from opentelemetry.context import Context
            from opentelemetry.trace import Link

            context = self._answered_in.get(event.input_id or "")
            attributes = {"messaging.operation.type": "send", "messaging.system": data["channel"],
                          "holdfast.delivery": data["id"], "holdfast.input": event.input_id or "",
                          "holdfast.attempt": data["attempts"]}  # fmt: skip
            span = self._tracer.start_span(
                f"send {data['channel']}", Context(), attributes=attributes, start_time=_ns(event),
                links=[] if context is None else [Link(context)],
            )  # fmt: skip
            _keep(self._sending, data["id"], span, OPEN_MAX)
            return
        span = self._sending.pop(data["id"], None)
        if span is not None:
            span.set_attribute("holdfast.event", data["event"])
            if data["event"] not in ("confirm", "confirm_piece"):
                _fail(span, data["event"])
            span.end(_ns(event))

    def _end_step(self, found: _Open, event: TurnEvent | None) -> None:
        at = None if event is None else _ns(event)
        for span in (*found.tools.values(), *found.calls.values(), found.window, found.step):
            if span is not None:
                span.end(at)
        found.tools.clear()
        found.calls.clear()
        found.window = found.step = None

    def _end_turn(self, turn: str, event: TurnEvent | None) -> None:
        found = self._open.pop(turn)
        _trace_ids.pop(turn, None)
        self._end_step(found, event)
        found.turn.end(None if event is None else _ns(event))


def _fail(span: Span, kind: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)


def _keep(kept: OrderedDict[str, Any], name: str, value: Any, limit: int) -> None:
    kept[name] = value
    if len(kept) > limit:
        kept.popitem(last=False)


def _ns(event: TurnEvent) -> int:
    return event.at_ms * 1_000_000
