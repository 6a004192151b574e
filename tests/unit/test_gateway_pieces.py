"""The parts of the gateway that decide: what was sent, who is there, what is shown, what is let go."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn import Config as UvicornConfig
from uvicorn.server import ServerState

from holdfast import errors
from holdfast.gateway import log
from holdfast.gateway.callers import CALLERS_MAX, GIVEN_S, Callers
from holdfast.gateway.connection import HEAD_S_MAX, STALL_S_MAX, BoundedHttp
from holdfast.gateway.following import GrowingText
from holdfast.gateway.openai_shapes import ending_of
from holdfast.gateway.replies import refusal_of, refusal_of_input
from holdfast.outbox.message import MOVED_ON_NOTE
from holdfast.store.views import InputView
from holdfast.turn.events import TurnEvent

# ── growing text ─────────────────────────────────────────────────────────────────────────────────────────────────────


def event(kind: str, turn: str = "t1", **data: Any) -> TurnEvent:
    return TurnEvent(kind, "s", 0, "in_1", turn, data)


def delta(text: str, turn: str = "t1") -> TurnEvent:
    return event("turn.delta", turn, text=text)


GROWTH: dict[str, tuple[list[TurnEvent], str, str, str | None]] = {
    # name: what happens, what is sent meanwhile, the answer, what is sent at its end (None: it is another answer)
    "a whole stream": ([event("turn.model"), delta("ab"), delta("c")], "abc", "abc", ""),
    "an end that was not streamed": ([event("turn.model"), delta("ab")], "ab", "abcd", "cd"),
    "a caller that came late": ([delta("b"), delta("c")], "", "abc", "abc"),
    "two rounds": (
        [event("turn.model"), delta("look"), event("turn.model"), delta("fi")], "look\n\nfi", "five", "ve",
    ),
    "a round without text": ([event("turn.model"), event("turn.model"), delta("five")], "five", "five", ""),
    "a second round that was not streamed": (
        [event("turn.model"), delta("look"), event("turn.model")], "look", "five", "\n\nfive",
    ),
    "another answer": ([event("turn.model"), delta("abc")], "abc", "xyz", None),
    "another turn after text was sent": (
        [event("turn.model"), delta("ab"), event("turn.model", "t2"), delta("ab", "t2")], "ab", "abc", None,
    ),
    "another turn before text was sent": (
        [event("turn.model"), event("turn.model", "t2"), delta("ab", "t2")], "ab", "abc", "c",
    ),
    "discarded after text was sent": ([event("turn.model"), delta("ab"), event("turn.discarded")], "ab", "abc", None),
    "discarded before text was sent": ([event("turn.model"), event("turn.discarded"), delta("x")], "", "abc", "abc"),
    "a hole in the stream": (
        [event("turn.model"), delta("ab"), event("dropped", count=3), delta("f")], "ab", "abcdef", "cdef",
    ),
    "an empty answer": ([event("turn.model")], "", "", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", GROWTH)
def test_what_was_sent_and_what_is_left_make_the_answer(name: str) -> None:
    happenings, sent, answer, rest = GROWTH[name]
    text = GrowingText()
    assert "".join(text.take(happening) for happening in happenings) == sent
    assert text.rest(answer) == rest


# ── endings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def settled(state: str, **more: Any) -> InputView:
    return InputView("in_1", "s", "main", "http", state, 0, {"content": "hi"}, settled_at_ms=1, **more)


def test_a_superseded_answer_comes_with_its_note() -> None:
    message = {"role": "assistant", "content": [{"type": "text", "text": "kept"}], "stopReason": "stop"}
    ending = ending_of(settled("superseded", answer="kept", result={"message": message, "finish": "stop"}), ())
    assert ending is not None
    assert (ending.text, ending.finish) == (f"kept\n\n{MOVED_ON_NOTE}", "stop")


def test_an_input_without_an_answer_has_no_ending() -> None:
    assert ending_of(settled("failed", detail="no"), ()) is None


@pytest.mark.parametrize(
    ("view", "status", "code"),
    [
        (settled("failed", detail="x", error="ProviderError"), 502, "provider_error"),
        (settled("failed", detail="x", error="TurnLimitError"), 422, "turn_limit"),
        (settled("failed", detail="x", error="SomethingElse"), 500, "turn_failed"),
        (settled("cancelled", detail="by me"), 409, "cancelled"),
        (settled("skipped", detail="no need"), 409, "skipped"),
        (settled("superseded", detail="lost"), 409, "superseded"),
    ],
)
def test_an_end_without_an_answer_names_the_input_and_asks_for_no_retry(
    view: InputView, status: int, code: str
) -> None:
    refusal = refusal_of_input(view)
    assert (refusal.status, refusal.code) == (status, code)
    assert refusal.headers["x-should-retry"] == "false"
    assert refusal.body()["error"]["input_id"] == "in_1"


def test_every_error_of_ours_that_accepting_can_raise_has_its_status() -> None:
    full = errors.ResourceError("no room")
    full.__cause__ = OSError(28, "No space left on device")
    for error, status in [
        (errors.InputConflictError("x"), 409),
        (errors.InputTooLargeError("x"), 413),
        (errors.UnknownInputError("x"), 404),
        (errors.UnknownSessionError("x"), 404),
        (errors.TranscriptFormatError("x"), 400),
        (errors.InputError("x"), 400),
        (errors.DrainingError(7), 503),
        (errors.SessionBusyError("s", 1.0, "somebody"), 409),
        (errors.ResourceError("x"), 503),
        (errors.StoreStoppedError("x"), 503),
        (full, 507),
    ]:
        refusal = refusal_of(error)
        assert refusal is not None
        assert refusal.status == status, error
        assert ("retry-after" in refusal.headers) == (error.again and status in (409, 503)), error
    assert refusal_of(RuntimeError("a fault of ours")) is None


# ── callers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_a_retry_joins_a_caller_who_is_there() -> None:
    caller = Callers().of_input("in_1", "d")
    caller.present = 1
    assert caller.may_be_joined(is_retry=True)
    assert not caller.may_be_joined(is_retry=False)
    caller.present = 0
    assert caller.may_be_joined(is_retry=False)


def test_an_acknowledged_caller_was_not_cut_off() -> None:
    caller = Callers().of_input("in_1", "d")
    caller.given_mono = 5.0
    assert not caller.may_be_joined(is_retry=False)


def test_an_answer_that_was_given_is_repeated_for_a_while_only() -> None:
    caller = Callers().of_input("in_1", "d")
    assert caller.may_be_repeated(1e9)
    caller.given_mono = 100.0
    assert caller.may_be_repeated(100.0 + GIVEN_S)
    assert not caller.may_be_repeated(101.0 + GIVEN_S)


@pytest.mark.promise("I12")
def test_the_memory_of_callers_is_bounded_and_forgets_the_oldest() -> None:
    callers = Callers()
    for number in range(CALLERS_MAX + 10):
        callers.of_input(f"in_{number}", f"d{number % 7}")
    remembered = [caller.input_id for digest in range(7) for caller in callers.of_digest(f"d{digest}")]
    assert len(remembered) == CALLERS_MAX
    assert "in_9" not in remembered
    assert next(callers.of_digest("d0")).input_id == max(
        (id for id in remembered if int(id[3:]) % 7 == 0), key=lambda id: int(id[3:])
    )


# ── log ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def lines_of(form: str, secrets: list[str], speak: Callable[[logging.Logger], object]) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log.JsonFormatter(secrets) if form == "json" else log.TextFormatter(secrets))
    logger = logging.Logger("holdfast.test")
    logger.addHandler(handler)
    speak(logger)
    return stream.getvalue()


@pytest.mark.parametrize("form", log.FORMATS)
@pytest.mark.promise("I12")
def test_secrets_are_taken_out_wherever_they_stand(form: str) -> None:
    secret = 'sk-ca"nary-12345'

    def speak(logger: logging.Logger) -> None:
        logger.info("asked with %s", secret)
        try:
            raise errors.ProviderError(f"401 for key {secret}", body={"key": secret})
        except errors.ProviderError:
            logger.exception("it failed: key=%s", secret)

    written = lines_of(form, [secret, "", "short"], speak)
    assert "nary-12345" not in written
    assert written.count(log.REDACTED) >= 3


def test_the_json_form_carries_the_facts_of_the_line() -> None:
    line = '[diagnostic] lane task error: lane=%s durationMs=%d error="%s: %s"'
    written = json.loads(lines_of("json", [], lambda logger: logger.warning(line, "main", 12, "SomeError", "it broke")))
    assert (written["tag"], written["level"], written["logger"]) == ("diagnostic", "warning", "holdfast.test")
    assert (written["lane"], written["durationMs"], written["error"]) == ("main", "12", "SomeError: it broke")
    assert written["message"].startswith("[diagnostic] lane task error: lane=main")


# ── connections ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Timers:
    """An event loop of which only the timers are used; `pass_time` moves it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._waiting: list[tuple[float, Callable[[], None], Any]] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Any:
        handle = asyncio.TimerHandle(self._now + delay_s, call, (), self)  # type: ignore[arg-type] # only cancel is used
        self._waiting.append((self._now + delay_s, call, handle))
        return handle

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: Any) -> None: ...

    def pass_time(self, seconds: float) -> None:
        self._now += seconds
        for at, call, handle in list(self._waiting):
            if at <= self._now and not handle.cancelled():
                self._waiting.remove((at, call, handle))
                call()


class Wire:
    """A transport that remembers how it ended."""

    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def get_extra_info(self, name: str) -> Any:
        return None


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def connection(wire: Wire, timers: Timers) -> BoundedHttp:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    config = UvicornConfig(app, log_config=None)
    protocol = BoundedHttp(config, ServerState(), {}, _loop=timers)
    protocol.connection_made(wire)  # type: ignore[arg-type] # of a transport only this much is used
    return protocol


def test_a_caller_who_sends_no_headers_is_let_go(connection: BoundedHttp, wire: Wire, timers: Timers) -> None:
    connection.data_received(b"GET / HTTP/1.1\r\nHost: local")
    timers.pass_time(HEAD_S_MAX - 1)
    assert not wire.is_aborted
    connection.data_received(b"host\r\nX-Slow: ")
    timers.pass_time(1)
    assert wire.is_aborted


def test_a_reader_who_reads_nothing_is_let_go(connection: BoundedHttp, wire: Wire, timers: Timers) -> None:
    connection._cancel_head_timer()  # the headers have come
    connection.pause_writing()
    timers.pass_time(STALL_S_MAX - 1)
    connection.resume_writing()
    timers.pass_time(STALL_S_MAX)
    assert not wire.is_aborted
    connection.pause_writing()
    timers.pass_time(STALL_S_MAX)
    assert wire.is_aborted
