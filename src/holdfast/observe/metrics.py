"""Numbers for Prometheus: what this process did, counted as it happens, and what waits in the whole state, asked for
when somebody looks. Needs the package prometheus-client.

Labels are bounded: names that people or programs choose (lanes, models, tools, channels) count as "other" once there
are `NAMES_MAX` of them. No session, input or turn is a label: `holdfast why` tells of those.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from holdfast.clock import epoch_ms
from holdfast.kernel import Holdfast
from holdfast.model.cooldown import left_s
from holdfast.model.usage import MILLION, Tokens
from holdfast.store.views import Backlog
from holdfast.turn.events import TurnEvent
from holdfast.version import __version__

NAMES_MAX = 64
OTHER = "other"
OPEN_TURNS_MAX = 10_000
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
LONG = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds: what the machine does, and what people, models and tools do."""


class Names:
    """A label whose values somebody else chooses."""

    def __init__(self, limit: int = NAMES_MAX) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, name: str | None) -> str:
        if not name:
            return "none"
        if name not in self._known:
            if len(self._known) >= self._limit:
                return OTHER
            self._known.add(name)
        return name


class Metrics:
    """All numbers of one process. `hear` counts until left; `render` is what Prometheus reads.

    Each instance has a registry of its own: several gateways in one process do not mix.
    """

    def __init__(self, hf: Holdfast) -> None:
        self._hf = hf
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Info("holdfast_build", "Which release runs", registry=registry).info({"version": __version__})
        self._lane, self._model, self._tool, self._channel, self._source = (Names() for _ in range(5))
        self._started_ms: OrderedDict[str, tuple[str, int]] = OrderedDict()  # lane and time, by turn
        self._opened_ms: OrderedDict[str, int] = OrderedDict()  # prompt windows, by turn

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"holdfast_{name}", about, labels, registry=registry)

        def seconds(name: str, about: str, *labels: str, buckets: tuple[float, ...] = LONG) -> Histogram:
            return Histogram(f"holdfast_{name}_seconds", about, labels, buckets=buckets, registry=registry)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"holdfast_{name}", about, labels, registry=registry)

        self._accepted = counter("inputs_accepted", "Inputs that this process accepted", "source", "lane")
        self._waited = seconds("queue_wait", "From accepting an input to its first turn", "lane")
        self._turns = counter("turns_settled", "Turns that ended, by the state their input is in then", "lane", "state")
        self._turn = seconds("turn", "From taking a session to settling", "lane")
        self._window = seconds("prompt_window", "How long prompt windows were open, by what was found", "verdict")
        self._lock = seconds("write_lock_wait", "Waits for a write lock that somebody else held", buckets=SHORT)
        self._calls = counter("model_calls", "Model calls, by how they ended", "model", "purpose", "state", "reason")
        self._call = seconds("model_call", "How long model calls took", "model")
        self._tokens = counter("model_tokens", "Tokens, as providers count them", "model", "kind")
        self._cost = counter("model_cost_dollars", "Money, where a price is known", "model")
        self._fallback = counter(
            "fallback_decisions", "What was decided on the way along a chain", "decision", "reason"
        )
        self._tools = counter("tool_calls", "Calls of tools", "tool", "error")
        self._approvals = counter("approvals", "Questions to people, by what became of them", "event")
        self._deliveries = counter("deliveries", "Moves of deliveries", "channel", "event")
        self._attention = counter("attention", "Turns that were told of for standing still", "event", "reason")
        self._recoveries = counter("recoveries", "Recoveries, by what came of them", "action", "outcome")
        self._compactions = counter("compactions", "Summaries of conversations", "phase")
        self.loop_lag = seconds("event_loop_lag", "How late the event loop woke up", buckets=SHORT)

        self._waiting = gauge("inputs_waiting", "Inputs that nobody has begun, in all processes", "lane")
        self._oldest = gauge("inputs_oldest_seconds", "Since when the one waits that has waited longest")
        self._running = gauge("turns_running", "Turns that run, in all processes", "lane")
        self._undelivered = gauge("undelivered", "Deliveries that have not ended", "channel", "state")
        self._undelivered_s = gauge("undelivered_oldest_seconds", "Age of the oldest of them", "channel")
        self._asked = gauge("approvals_waiting", "Questions that wait for a person")
        self._cooling = gauge("model_cooldowns", "Models and keys that are left alone for now")
        self._pins = gauge("model_pins", "Sessions whose model is pinned, by who did it", "source")
        self._held = gauge("work_held", "1: work is held back after a crash loop")
        self._hearing = self._hears()

    def _hears(self) -> Mapping[str, Callable[[TurnEvent, dict[str, Any]], None]]:
        """What counts which event, by its kind."""
        return {
            "input.accepted": lambda _, d: self._accepted.labels(
                self._source(d["source"]), self._lane(d["lane"])
            ).inc(),
            "turn.started": self._on_started,
            "turn.settled": self._on_settled,
            "turn.window_opened": self._on_window_opened,
            "turn.window_closed": self._on_window_closed,
            "turn.call_ended": self._on_call_ended,
            "turn.fallback": lambda _, d: self._fallback.labels(d["decision"], d.get("reason") or "none").inc(),
            "turn.tool_result": lambda _, d: self._tools.labels(
                self._tool(d["name"]), str(d["is_error"]).lower()
            ).inc(),
            "delivery": lambda _, d: self._deliveries.labels(self._channel(d["channel"]), d["event"]).inc(),
            "session.long_running": lambda _, d: self._attention.labels("long_running", d["reason"]).inc(),
            "session.stalled": lambda _, d: self._attention.labels("stalled", d["reason"]).inc(),
            "session.stuck": lambda _, d: self._attention.labels("stuck", d["reason"]).inc(),
            "session.recovery.completed": lambda _, d: self._recoveries.labels(d["action"], d["outcome"]).inc(),
            "turn.approval": lambda _, d: self._approvals.labels("asked").inc(),  # noqa: ARG005
            "turn.approval_ended": lambda _, d: self._approvals.labels(d["state"]).inc(),
            "turn.compaction": lambda _, d: self._compactions.labels(d["phase"]).inc(),
        }

    @contextmanager
    def hear(self) -> Iterator[None]:
        """Count what happens in this process until left."""
        with ExitStack() as until_left:
            until_left.enter_context(self._hf.events.listening(self._on_event, self._hearing))
            until_left.enter_context(self._hf.store.hear_of_lock_waits(self._lock.observe))
            yield

    async def render(self) -> bytes:
        """The text format of Prometheus, version 0.0.4.

        Raises: ResourceError: the ledger cannot be read.
        """
        self._show(await self._hf.store.backlog())
        models, now_ms = await self._hf.models(), epoch_ms(self._hf.clock.now())
        self._cooling.set(
            sum(left_s(row, now_ms) > 0 for row in models.cooldowns)
        )  # those that have ended are kept, too
        self._pins.clear()
        for pin in models.pins:
            self._pins.labels(pin.source).inc()
        self._held.set(await self._hf.held() is not None)
        return generate_latest(self._registry)

    def _show(self, now: Backlog) -> None:
        now_ms = epoch_ms(self._hf.clock.now())
        for gauge, found in ((self._waiting, now.waiting), (self._running, now.running)):
            gauge.clear()
            for lane, count in found.items():
                gauge.labels(self._lane(lane)).inc(count)
        self._oldest.set(_age_s(now_ms, now.oldest_accepted_ms))
        self._undelivered.clear()
        self._undelivered_s.clear()
        oldest: dict[str, int] = {}
        for (channel, state), (count, since_ms) in now.undelivered.items():
            name = self._channel(channel)
            self._undelivered.labels(name, state).inc(count)
            oldest[name] = min(oldest.get(name, since_ms), since_ms)
        for name, since_ms in oldest.items():
            self._undelivered_s.labels(name).set(_age_s(now_ms, since_ms))
        self._asked.set(now.asked)

    def _on_event(self, event: TurnEvent) -> None:
        self._hearing[event.kind](event, event.data)

    def _on_started(self, event: TurnEvent, data: dict[str, Any]) -> None:
        if data["attempt"] <= 1 and data["waited_ms"] is not None:
            self._waited.labels(self._lane(data["lane"])).observe(data["waited_ms"] / 1000)
        _put(self._started_ms, event.turn_id, (data["lane"], event.at_ms))

    def _on_settled(self, event: TurnEvent, data: dict[str, Any]) -> None:
        lane, since_ms = self._started_ms.pop(event.turn_id or "", ("", event.at_ms))
        self._opened_ms.pop(event.turn_id or "", None)
        self._turns.labels(self._lane(lane), data["state"]).inc()
        if lane:
            self._turn.labels(self._lane(lane)).observe(max(0, event.at_ms - since_ms) / 1000)

    def _on_window_opened(self, event: TurnEvent, _: dict[str, Any]) -> None:
        _put(self._opened_ms, event.turn_id, event.at_ms)

    def _on_window_closed(self, event: TurnEvent, data: dict[str, Any]) -> None:
        since_ms = self._opened_ms.pop(event.turn_id or "", event.at_ms)
        self._window.labels(data["verdict"]).observe(max(0, event.at_ms - since_ms) / 1000)

    def _on_call_ended(self, _: TurnEvent, data: dict[str, Any]) -> None:
        model = self._model(data["model"])
        self._calls.labels(model, data["purpose"], data["state"], data["reason"] or "none").inc()
        self._call.labels(model).observe(max(0, data["ms"]) / 1000)
        tokens: Tokens = data["tokens"]
        for kind in ("input", "output", "cache_read", "cache_write"):
            self._tokens.labels(model, kind).inc(getattr(tokens, kind))
        if data["cost"] is not None:
            self._cost.labels(model).inc(data["cost"] / MILLION)


def _put(found: OrderedDict[str, Any], turn: str | None, value: Any) -> None:
    """Remember, and forget the oldest where there are too many: turns whose end nobody has told us of."""
    found[turn or ""] = value
    if len(found) > OPEN_TURNS_MAX:
        found.popitem(last=False)


def _age_s(now_ms: int, since_ms: int | None) -> float:
    return 0.0 if since_ms is None else max(0, now_ms - since_ms) / 1000
