"""The checker of histories: what it must let pass, and the bad ones it must find."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from holdfast.testing.linear import NEVER, Checked, Log, Operation, check, check_log

Lines = list[tuple[str, int]]


def session(
    seed: int, *, operations: int = 400, clients: int = 8, unfenced: float = 0.0
) -> tuple[Lines, list[Operation]]:
    """What clients of a real session would write down: each operation takes effect at one moment inside it, one in
    twenty is cut off by a kill, before or after it took effect.

    Args:
        unfenced: how often a former owner's append is let through.
    """
    chance = random.Random(seed)
    moments: list[tuple[float, float, float, str]] = []
    now, busy_until = 0.0, dict.fromkeys(map(str, range(clients)), 0.0)
    for _ in range(operations):
        client = chance.choice(list(busy_until))
        begin = max(now, busy_until[client]) + chance.random() * 0.1
        moment, end = begin + chance.random(), begin + 1 + chance.random()
        moments.append((moment, begin, end, client))
        busy_until[client] = end
        now += chance.random() * 2 / clients
    epoch, lines, held, history = 0, [], {}, []
    for _, begin, end, client in sorted(moments):
        is_killed, took_effect = chance.random() < 0.05, chance.random() < 0.5
        at = (client, begin, NEVER if is_killed else end)
        name = chance.choice(["take", "append", "append", "append", "read"])
        if name == "take":
            epoch += 1
            if not is_killed:
                held[client] = epoch
            history.append(Operation(*at, "take", result=epoch))
        elif name == "append" and client in held:
            fits = held[client] == epoch or chance.random() < unfenced
            if fits and (took_effect or not is_killed):
                lines.append((f"line {len(history)}", held[client]))
            history.append(Operation(*at, "append", (held[client], f"line {len(history)}"), fits))
        elif name == "read":
            history.append(Operation(*at, "read", result=len(lines)))
    return lines, history


def finding(checked: Checked) -> str:
    return checked.finding


@pytest.mark.parametrize("seed", range(30))
def test_a_history_of_a_real_session_is_linearizable(seed: int) -> None:
    assert finding(check_log(*session(seed))) == "linearizable"


@pytest.mark.parametrize("seed", range(20))
def test_what_nobody_wrote_down_may_have_been_done_by_others(seed: int) -> None:
    lines, history = session(seed)
    kept = [one for one in history if one.client in ("0", "1", "2")]
    assert finding(check_log(lines, kept)) == "linearizable"


@pytest.mark.promise("I11", "I13")
def test_a_former_owner_that_is_let_through_is_found() -> None:
    found = [finding(check_log(*session(seed, unfenced=0.05))) for seed in range(20)]
    assert found.count("not linearizable") >= 18  # in a few nobody noticed, or nobody was late


def changed(history: list[Operation], name: str, result: object, to: object) -> list[Operation]:
    """One operation in the middle had another result."""
    places = [n for n, one in enumerate(history) if one.name == name and one.result == result and not one.is_pending]
    at = places[len(places) // 2]
    return [*history[:at], replace(history[at], result=to), *history[at + 1 :]]


@pytest.mark.parametrize("seed", range(5))
def test_a_line_that_was_acknowledged_and_is_gone_is_found_and_named(seed: int) -> None:
    lines, history = session(seed)
    told = [one for one in history if one.name == "append" and one.result is True and not one.is_pending]
    gone = told[len(told) // 2]
    kept = [line for line in lines if line[0] != gone.args[1]]  # pyright: ignore[reportIndexIssue]
    assert check_log(kept, history).stuck == (gone,)


@pytest.mark.parametrize("seed", range(5))
def test_a_line_that_stands_twice_is_found(seed: int) -> None:
    lines, history = session(seed)
    assert finding(check_log([*lines, lines[3]], history)) == "not linearizable"


def test_two_owners_of_one_epoch_are_found() -> None:
    lines, history = session(1)
    taken = [one.result for one in history if one.name == "take" and not one.is_pending]
    assert finding(check_log(lines, changed(history, "take", taken[5], taken[4]))) == "not linearizable"


def test_an_owner_that_is_refused_while_nobody_else_had_the_session_is_found() -> None:
    history = [
        Operation("a", 0, 1, "take", result=1),
        Operation("a", 2, 3, "append", (1, "refused"), False),
        Operation("a", 4, 5, "append", (1, "x"), True),
    ]
    assert finding(check_log([("x", 1)], history)) == "not linearizable"


def test_a_reader_that_sees_less_than_was_there_before_it_asked_is_found() -> None:
    history = [
        Operation("a", 0, 1, "take", result=1),
        Operation("a", 2, 3, "append", (1, "x"), True),
        Operation("b", 4, 5, "read", result=0),
    ]
    assert finding(check_log([("x", 1)], history)) == "not linearizable"


def test_a_read_during_an_append_may_see_it_or_not() -> None:
    for seen in (0, 1):
        history = [
            Operation("a", 0, 1, "take", result=1),
            Operation("a", 2, 5, "append", (1, "x"), True),
            Operation("b", 3, 4, "read", result=seen),
        ]
        assert finding(check_log([("x", 1)], history)) == "linearizable"


def test_lines_in_another_order_than_they_were_acknowledged_are_found() -> None:
    history = [
        Operation("a", 0, 1, "take", result=1),
        Operation("a", 2, 3, "append", (1, "x"), True),
        Operation("a", 4, 5, "append", (1, "y"), True),
    ]
    assert finding(check_log([("y", 1), ("x", 1)], history)) == "not linearizable"


def test_a_history_that_would_take_too_long_is_never_called_fine() -> None:
    lines, history = session(1)
    assert finding(check_log(lines, history, steps_max=50)) == "undecided"


@pytest.mark.promise("I11")
def test_the_general_search_agrees_with_the_one_for_logs() -> None:
    """On small histories that everybody wrote down, without knowing which pending operation fits."""
    for seed in range(40):
        lines, history = session(seed, operations=25, clients=3, unfenced=0.3 if seed % 2 else 0.0)
        log = Log([line for line, _ in lines])
        assert finding(check(history, log.step, Log.start)) == finding(check_log(lines, history)), seed


def test_an_operation_that_the_model_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="no such operation"):
        check([Operation("a", 0, 1, "swap")], Log([]).step, Log.start)
