"""What the command line writes, and which exit code an error has."""

from __future__ import annotations

import json

import pytest

from holdfast import errors
from holdfast.cli.chat import Screen
from holdfast.cli.exit_codes import TryAgainError, exit_code_of, explain
from holdfast.cli.output import local_time, print_json, print_text, shortened


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        (errors.ConfigError(["a.b: wrong"]), 78),
        (errors.SessionBusyError("s", 1.0, "turn_1"), 75),
        (errors.SessionWriteLockTimeoutError("p", 1, "pid 1"), 75),
        (errors.DrainingError(), 75),
        (TryAgainError("full"), 75),
        (errors.WaitRingError("ring"), 1),
        (errors.OwnershipLostError("lost"), 1),
        (errors.InputError("wrong"), 1),
        (errors.ResourceError("disk full"), 1),
        (errors.StateVersionError("newer"), 1),
    ],
)
def test_an_error_has_the_exit_code_that_says_whether_trying_again_helps(
    failed: errors.HoldfastError, code: int
) -> None:
    assert exit_code_of(failed) == code


def test_a_configuration_error_is_explained_fault_by_fault_and_no_error_is_silent() -> None:
    assert explain(errors.ConfigError(["a: x", "b: y"])) == ["a: x", "b: y"]
    assert explain(errors.ResourceError("")) == ["ResourceError"]


def test_json_holds_what_json_can_hold_even_half_an_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"text": "\ud83d", "number": 2**70})
    assert json.loads(capsys.readouterr().out) == {"text": "\ud83d", "number": 2**70}


def test_text_that_the_terminal_cannot_show_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("half \ud83d")
    assert capsys.readouterr().out == "half \\ud83d\n"


def test_a_long_text_is_shortened_to_its_first_line() -> None:
    assert shortened("short") == "short"
    assert shortened("two\nlines") == "two…"
    assert shortened("x" * 100, 10) == "x" * 9 + "…"
    assert local_time(None) == ""


def test_an_answer_grows_on_the_screen_and_is_written_whole_if_it_turns_out_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = Screen()
    settled = {"id": "in_1", "settled": True, "state": "answered", "detail": None}
    for kind, data in (("turn.model", {}), ("turn.delta", {"text": "a "}), ("turn.delta", {"text": "b"})):
        screen.take(kind, data)
    screen.finish(settled | {"answer": "a b"})
    assert capsys.readouterr().out == "a b\n"
    screen.take("turn.delta", {"text": "wrong"})
    screen.take("turn.discarded", {"reason": "overloaded"})
    screen.take("turn.tool_call", {"name": "clock"})
    screen.take("turn.delta", {"text": "ri"})
    screen.finish(settled | {"answer": "right"})
    assert capsys.readouterr().out == "wrong\n[not the answer: overloaded]\n[clock …]\nri\nright\n"
