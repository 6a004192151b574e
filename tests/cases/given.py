"""Case files: situations that others met and what came out, one test per case.

A case may be set aside, with its reason, in three ways, which the printed totals keep apart: "left out" (Holdfast
decided otherwise), "waiting" (the part that it speaks of is not there yet), "not understood" (its wording is new to the
runner; never so for the files that ship). `HOLDFAST_CASES` names another folder of files in the same forms.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SHIPPED = Path(__file__).parent
FOLDER = Path(os.environ.get("HOLDFAST_CASES") or SHIPPED)
LEFT_OUT, WAITING, NOT_UNDERSTOOD = "left out", "waiting", "not understood"


@dataclass(frozen=True)
class Case:
    """One case: everything it says, as it says it."""

    file: str
    data: dict[str, Any]

    @property
    def id(self) -> str:
        return self.data["id"]

    @property
    def title(self) -> str:
        return self.data.get("title", "")

    @property
    def setup(self) -> dict[str, Any]:
        return self.data.get("setup", {})

    @property
    def expected(self) -> dict[str, Any]:
        return self.data["expected"]


@dataclass(frozen=True)
class SetAside:
    """Why a case is not run. `how` is one of the three words above."""

    how: str
    reason: str


def cases(name: str, folder: Path = FOLDER) -> list[Case]:
    """The cases of a file; none if the folder does not have it."""
    path = folder / name
    if not path.exists():
        return []
    return [Case(name, data) for data in json.loads(path.read_text(encoding="utf-8"))["cases"]]


def each(name: str, set_aside: Callable[[Case], SetAside | None] = lambda _: None) -> list[Any]:
    """Parameters for `pytest.mark.parametrize("case", …)`: one per case, with its id."""
    found: list[Any] = []
    for case in cases(name):
        aside = set_aside(case)
        marks = [pytest.mark.skip(reason=f"{aside.how}: {aside.reason}")] if aside else []
        found.append(pytest.param(case, id=case.id, marks=marks))
    return found


def check_words(name: str, set_aside: Callable[[Case], SetAside | None], *known: Iterable[str]) -> None:
    """Every expectation of a case that is run is compared, or named with the reason why it is not."""
    run = [case for case in cases(name, SHIPPED) if set_aside(case) is None]
    assert {word for case in run for word in case.expected} <= {word for words in known for word in words}


def check_set_aside(name: str, set_aside: Callable[[Case], SetAside | None], *tables: Iterable[str]) -> None:
    """Of the shipped file all is understood, all reasons are given, and no table names a case that is not there."""
    shipped = cases(name, SHIPPED)
    assert shipped
    for case in shipped:
        aside = set_aside(case)
        if aside is not None:
            assert aside.how in (LEFT_OUT, WAITING), f"{case.id}: {aside.reason}"
            assert len(aside.reason.split()) >= 3, f"{case.id}: say why"
    named = {name for table in tables for name in table}
    known = {case.id for case in shipped} | {case.data.get("area") for case in shipped}
    assert named <= known
