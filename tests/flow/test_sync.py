"""The synchronous library: the same promises, from plain threads."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
import holdfast.sync
from holdfast.clock import SystemClock
from holdfast.session.entries import MessageEntry
from holdfast.session.prompt_window import PromptWindow

MAIN = "agent:main:main"


@pytest.fixture
def hf(tmp_path: Path) -> Iterator[holdfast.sync.Holdfast]:
    with holdfast.sync.open(tmp_path / "state") as handle:
        yield handle


def texts(hf: holdfast.sync.Holdfast, key: str = MAIN) -> list[str]:
    entries = [entry for entry in hf.session(key).entries() if isinstance(entry, MessageEntry)]
    return [part["text"] for entry in entries for part in entry.message["content"]]


ONLY_ASYNC = {
    "Holdfast": {"start", "close", "claim", "close_turn", "live_turns"}  # `with` and `turn` do these
    | {"hear_of_others", "work"},  # for watchers and loops, which are asynchronous
    "Turn": {"close", "cancel", "note", "publish", "flush_story", "keep_finished"}  # what a turn's own loop calls
    | {
        "append_interrupted",
        "append_last",
        "branch_before_input",
        "pending_calls",
    }  # for runners, which are asynchronous
    | {"answers", "append_beside_input", "append_dropped", "begin_anew", "gives_way", "take_in", "happened_meanwhile"}
    | {"is_to_stop", "why_to_stop", "end_as_stalled", "end_if_silent", "append_compaction", "owned"}
    | {"ask_leave"}  # waits for minutes, in the loop of a program
    | {"next_call", "begin_call", "end_call", "progress"},
    "Session": set[str](),
    "PromptWindow": {"meet"},
}


@pytest.mark.parametrize(
    ("sync_class", "async_class"),
    [
        (holdfast.sync.Holdfast, holdfast.Holdfast),
        (holdfast.sync.Turn, holdfast.Turn),
        (holdfast.sync.Session, holdfast.Session),
        (holdfast.sync.PromptWindow, PromptWindow),
    ],
)
def test_the_same_names_take_the_same_arguments(sync_class: type, async_class: type) -> None:
    def public(cls: type) -> dict[str, Any]:
        return {name: value for name, value in vars(cls).items() if not name.startswith("_")}

    name = async_class.__name__
    theirs, ours = public(async_class), public(sync_class)
    assert set(theirs) - set(ours) == ONLY_ASYNC[name]
    for method in set(theirs) & set(ours):
        if callable(theirs[method]):
            expected = inspect.signature(theirs[method]).parameters
            assert inspect.signature(ours[method]).parameters == expected, method


def test_a_turn_is_taken_asked_and_answered_without_async(hf: holdfast.sync.Holdfast) -> None:
    accepted = hf.accept(holdfast.InboundEvent(MAIN, {"content": "hello"}))
    assert isinstance(accepted, holdfast.Accepted)
    with hf.turn(MAIN, input_id=accepted.input_id) as turn:
        assert turn.view is not None
        turn.append(holdfast.user(turn.view.payload["content"]))
        with turn.prompt_window() as window:
            answer = f"you said {turn.context()[-1]['content'][0]['text']}"
            window.finished(answer)
        assert window.verdict is not None
        assert window.verdict.kind == "unchanged"
        turn.append(holdfast.assistant(answer, model="demo/demo"))
    assert texts(hf) == ["hello", "you said hello"]
    view = hf.wait_input(accepted.input_id, timeout_s=5)
    assert (view.state, view.answer) == ("answered", "you said hello")
    assert hf.why(accepted.input_id).state == "answered"


def test_an_exception_goes_on_and_settles_the_turn_as_failed(hf: holdfast.sync.Holdfast) -> None:
    with pytest.raises(ZeroDivisionError) as caught, hf.turn(MAIN):
        _ = 1 / 0
    assert len(caught.traceback) == 1  # what happened on the loop's thread is nobody's concern
    (turn,) = hf.turns()
    assert (turn.state, turn.outcome) == ("settled", "failed")
    assert "ZeroDivisionError" in (turn.detail or "")


def test_a_stop_iteration_from_the_body_is_no_different(hf: holdfast.sync.Holdfast) -> None:
    with pytest.raises(StopIteration), hf.turn(MAIN):
        next(iter([]))
    assert hf.turns()[0].outcome == "failed"


def test_a_takeover_is_raised_on_leaving_the_window_and_the_answer_is_kept(hf: holdfast.sync.Holdfast) -> None:
    with hf.turn(MAIN) as turn:
        path = Path(turn.transcript.path)
        turn.append(holdfast.user("hello"))
        window = turn.prompt_window().__enter__()
        path.write_bytes(b"")
        window.finished("a dear answer")
        with pytest.raises(holdfast.SessionTakeoverError) as caught:
            window.__exit__(None, None, None)
    assert caught.value.verdict.kind == "tampered"
    (kept,) = path.parent.glob("*.kept-*")
    assert "a dear answer" in kept.read_text()


def test_another_thread_that_will_not_wait_is_told_that_the_session_is_busy(hf: holdfast.sync.Holdfast) -> None:
    def try_at_once() -> None:
        with hf.turn(MAIN, wait_s=0):
            pass

    with hf.turn(MAIN), ThreadPoolExecutor(1) as pool, pytest.raises(holdfast.SessionBusyError):
        pool.submit(try_at_once).result()


def test_threads_that_wait_get_the_session_one_after_the_other(hf: holdfast.sync.Holdfast) -> None:
    def say(number: int) -> None:
        with hf.turn(MAIN, wait_s=30) as turn:
            turn.append(holdfast.user(f"question {number}"))
            turn.append(holdfast.assistant(f"answer {number}", model="demo/demo"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(say, range(6)))
    said = texts(hf)
    assert len(said) == 12
    assert [question.split()[1] for question in said[::2]] == [answer.split()[1] for answer in said[1::2]]


def test_threads_may_share_one_turn(hf: holdfast.sync.Holdfast) -> None:
    with hf.turn(MAIN) as turn, ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda n: turn.append(holdfast.user(f"part {n}")), range(12)))
    lines = [line for line in hf.session(MAIN).lines() if line.type == "message"]
    assert {line.id for line in lines} == set(ids)
    assert [line.parent for line in lines[1:]] == [line.id for line in lines[:-1]]


def test_a_turn_of_the_same_session_inside_a_turn_is_refused_at_once(hf: holdfast.sync.Holdfast) -> None:
    with hf.turn(MAIN), pytest.raises(holdfast.WaitRingError), hf.turn(MAIN, wait_s=30):
        pass


def test_metadata_needs_no_turn(hf: holdfast.sync.Holdfast) -> None:
    with hf.turn(MAIN) as turn:
        target = turn.append(holdfast.user("hello"))
    hf.session(MAIN).append_metadata(holdfast.label(target, "greeting"))
    assert [line.type for line in hf.session(MAIN).lines()][-1] == "label"


def test_a_handle_is_of_no_use_before_and_after_its_with(tmp_path: Path) -> None:
    handle = holdfast.sync.open(tmp_path / "state")
    with handle as hf:
        pass
    with pytest.raises(holdfast.InputError, match="not open"):
        hf.sessions()
    with pytest.raises(holdfast.InputError, match="opened before"):
        handle.__enter__()


def test_what_is_wrong_with_a_state_is_raised_on_entering(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    before = threading.active_count()
    with pytest.raises(holdfast.HoldfastError), holdfast.sync.open(tmp_path / "file"):
        pass
    assert threading.active_count() <= before  # fewer, if one of an earlier test ends only now


def test_closing_the_handle_interrupts_a_turn_in_another_thread(tmp_path: Path) -> None:
    holding, closed = threading.Event(), threading.Event()

    def hold(hf: holdfast.sync.Holdfast, input_id: str) -> None:
        with hf.turn(MAIN, input_id=input_id):
            holding.set()
            assert closed.wait(30)

    with ThreadPoolExecutor(1) as pool:
        with holdfast.sync.open(tmp_path / "state") as hf:
            accepted = hf.accept(holdfast.InboundEvent(MAIN, {"content": "hello"}))
            assert isinstance(accepted, holdfast.Accepted)
            held = pool.submit(hold, hf, accepted.input_id)
            assert holding.wait(30)
        closed.set()
        with pytest.raises(holdfast.InputError, match="closed by another thread"):
            held.result(30)
    with holdfast.sync.open(tmp_path / "state") as hf:
        assert hf.input(accepted.input_id).state == "queued"


class InterruptingClock(SystemClock):
    """Sends Ctrl-C to the main thread the next time somebody asks for the monotonic time after `arm`."""

    def __init__(self) -> None:
        self._armed = False

    def arm(self) -> None:
        self._armed = True

    def mono(self) -> float:
        if self._armed:
            self._armed = False
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return super().mono()


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_wait_and_the_turn_gives_its_input_back(tmp_path: Path) -> None:
    """The clock sends the signal from inside the wait, so there is nothing to time."""
    clock = InterruptingClock()
    with holdfast.sync.open(tmp_path / "state", clock=clock) as hf, ctrl_c_raises():
        mine, other = (hf.accept(holdfast.InboundEvent(key, {"content": "hello"})) for key in (MAIN, "hook:other"))
        assert isinstance(mine, holdfast.Accepted)
        assert isinstance(other, holdfast.Accepted)

        def wait_for_the_other() -> None:
            with hf.turn(MAIN, input_id=mine.input_id):
                clock.arm()
                hf.wait_input(other.input_id)  # never settled: only the signal ends this

        with pytest.raises(KeyboardInterrupt):
            wait_for_the_other()
        assert hf.input(mine.input_id).state == "queued"
        with hf.turn(MAIN, wait_s=0, input_id=mine.input_id) as turn:
            turn.append(holdfast.user("hello"))


def test_ctrl_c_while_waiting_for_a_session_leaves_no_place_in_line(tmp_path: Path) -> None:
    clock = InterruptingClock()
    state = tmp_path / "state"
    with holdfast.sync.open(state, clock=clock) as hf, holdfast.sync.open(state) as other, ctrl_c_raises():
        with other.turn(MAIN):
            waiting = hf.turn(MAIN, wait_s=600)
            clock.arm()
            with pytest.raises(KeyboardInterrupt):
                waiting.__enter__()
        with other.turn(MAIN, wait_s=5) as turn:
            turn.append(holdfast.user("free"))
        assert texts(other) == ["free"]


def test_a_forked_child_owns_nothing_and_its_calls_say_so(hf: holdfast.sync.Holdfast) -> None:
    with hf.turn(MAIN) as turn:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            said = b""
            try:
                turn.append(holdfast.user("from the child"))
                said = b"written"
            except BaseException as exc:
                said = type(exc).__name__.encode()
            finally:  # whatever happens, the child must not go on as a second test run
                with contextlib.suppress(OSError):
                    os.write(writing, said)
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read() == b"OwnershipLostError"
        os.waitpid(child, 0)
        turn.append(holdfast.user("from the parent"))
    assert texts(hf) == ["from the parent"]
