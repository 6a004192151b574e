"""What senders are told of a failure."""

from __future__ import annotations

import pytest

from holdfast.errors import ResourceError
from holdfast.text import without_folders
from holdfast.turn.outcomes import explain


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("cannot write /var/lib/holdfast/sessions/main.jsonl: no space", "cannot write …/main.jsonl: no space"),
        ("'/data/s/fence/a.rec' is damaged", "'…/a.rec' is damaged"),
        ("see ~/state/ledger.sqlite3", "see …/ledger.sqlite3"),
        ("https://example.org/docs/errors.html and/or 3/4", "https://example.org/docs/errors.html and/or 3/4"),
        ("either/or, /queue, a // b", "either/or, /queue, a // b"),
    ],
)
def test_of_a_path_only_the_name_is_left(said: str, left: str) -> None:
    assert without_folders(said) == left


def test_a_sender_is_not_told_where_the_state_lies() -> None:
    told = explain(ResourceError("/data/state/sessions/x.jsonl: no space left on the device."))
    assert "/data" not in told
    assert "…/x.jsonl: no space left" in told
