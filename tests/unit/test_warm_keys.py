"""Which key a session goes on with, from the calls that the ledger tells of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.model.credentials import Credential
from holdfast.model.usage import ModelCall
from holdfast.turn.warm_keys import choose_keys, warm_first

NOW = 1_000_000


def call(ago_s: int, key: str = "KEY_2", model: str = "anthropic/a", **facts: Any) -> ModelCall:
    ended = NOW - ago_s * 1000
    one = ModelCall("t:1", "t", "s", "main", "main", None, model, key, 1, "answer", "done", ended - 1, ended)
    return replace(one, **facts)


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([], {}),
        ([call(10)], {"anthropic": "KEY_2"}),
        ([call(300)], {"anthropic": "KEY_2"}),
        ([call(301)], {}),
        ([call(10, "KEY_3"), call(20, "KEY_2")], {"anthropic": "KEY_3"}),
        ([call(10, "KEY_3", state="failed"), call(20, "KEY_2")], {"anthropic": "KEY_2"}),
        ([call(10, "KEY_3", purpose="summary"), call(20, "KEY_2")], {"anthropic": "KEY_2"}),
        ([call(10, ""), call(20, "KEY_2")], {"anthropic": "KEY_2"}),
        ([call(10, "O", "openai/x"), call(20, "KEY_2")], {"openai": "O", "anthropic": "KEY_2"}),
        ([call(10, "B", "bedrock/x"), call(20, "C", "amazon-bedrock/x")], {"amazon-bedrock": "B"}),
    ],
)
def test_it_is_that_of_its_newest_answer_while_that_is_kept(calls: list[ModelCall], expected: dict[str, str]) -> None:
    assert choose_keys(calls, lambda _: 300.0, NOW) == expected


def test_the_warm_key_comes_first_and_the_others_keep_their_order() -> None:
    keys = [Credential(label, label.upper(), "") for label in ("a", "b", "c")]
    assert [one.id for one in warm_first(keys, "C")] == ["c", "a", "b"]
    assert [one.id for one in warm_first(keys, None)] == ["a", "b", "c"]
    assert [one.id for one in warm_first(keys, "gone")] == ["a", "b", "c"]
