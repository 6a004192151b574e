"""The formal models and the page that maps them to the code: every step is mapped, every name exists, every bug that a
model knows is planted, and a search that did not end proves nothing.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "design" / "0007-the-formal-model.md").read_text(encoding="utf-8")
MODELS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "formal").glob("*.pml"))}


def load_driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("model_driver", ROOT / "scripts" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["model_driver"] = module
    spec.loader.exec_module(module)
    return module


model = load_driver()


def names_in(path: Path) -> set[str]:
    """`name` of functions and classes, `Class.name` of methods."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{one.name}" for one in methods}
    return found


def steps_of(text: str) -> set[str]:
    return set(re.findall(r"^(?:inline|(?:active )?proctype) (\w+)", text, re.MULTILINE))


def mapped() -> dict[str, set[str]]:
    """Steps on the page, by model."""
    found: dict[str, set[str]] = {name: set() for name in MODELS}
    for name, steps in re.findall(r"^\| (\w+) (`.*?) \|", PAGE, re.MULTILINE):
        if name in found:
            found[name] |= set(re.findall(r"`(\w+)`", steps))
    return found


def test_every_name_on_the_page_exists_in_the_code() -> None:
    named = re.findall(r"`([\w/]+\.py): ([\w.]+)`", PAGE)
    assert len(named) > 50
    assert [one for one in named if one[1] not in names_in(ROOT / "src" / "holdfast" / one[0])] == []


def test_every_test_on_the_page_exists() -> None:
    assert [path for path in re.findall(r"`(tests/[\w/]+\.py)`", PAGE) if not (ROOT / path).exists()] == []


def test_every_step_of_the_models_is_on_the_page_and_no_other() -> None:
    assert mapped() == {name: steps_of(text) for name, text in MODELS.items()}


@pytest.mark.promise("I13")
def test_every_bug_that_a_model_knows_is_planted_by_a_run() -> None:
    known = {
        (name, bug)
        for name, text in MODELS.items()
        for bug in re.findall(r"^#define (\w+) \d+ +/\*", text, re.MULTILINE)
        if re.search(rf"PLANTED [!=]= {bug}\b", text)
    }
    planted = {(run.model, run.planted) for run in model.PLANTED}
    assert {run.scope for run in model.PLANTED if run.planted != "OFFSET_KEPT"} == {"ci"}  # that one takes half an hour
    assert planted == known
    assert len(planted) >= 40


def test_every_model_has_a_run_of_the_right_protocol_in_ci() -> None:
    assert {run.model for run in model.chosen("", "ci") if run.planted is None} == set(MODELS)


GROUPS = model.by_verifier(model.chosen("", "ci"))


@pytest.mark.proof("model")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", GROUPS, ids=[f"{one[0].model} {one[0].name}" for one in GROUPS])
@pytest.mark.promise("I13")
def test_the_right_protocol_holds_and_each_planted_bug_is_found(
    group: list[Any], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """As `make model` does it, one verifier after the other, within the bounds of CI."""
    if model.missing_tools():
        pytest.skip(f"not run: {' and '.join(model.missing_tools())} for the formal models (apt install spin gcc)")
    results = list(model.check(group, ROOT / ".cache" / "model"))
    assert [model.show(one) for one in results if not one.ok] == []
    right = [one for one in results if one.planted is None]
    record_property("model", [len(right), sum(one.states for one in right), len(results) - len(right)])
    if group[0].name == "two kills and a lapse":
        assert right[0].states >= model.STATES_MIN, "the bounds have become too narrow to mean much"


RIGHT = model.Run("beat", "right")
WRONG = model.Run("beat", "wrong", planted="GAP_TRUSTED")
ENDED = "State-vector 60 byte, depth reached 93, errors: 0\n   747490 states, stored\n"
BROKEN = "pan:1: assertion violated (silent>=5) (at depth 9)\nState-vector 60 byte, errors: 1\n   10 states, stored\n"


@pytest.mark.parametrize(
    ("run", "said", "ok"),
    [
        (RIGHT, ENDED, True),
        (RIGHT, BROKEN, False),
        (RIGHT, "pan: not finished after 100 s", False),
        (RIGHT, "error: max search depth too small\n" + ENDED, False),
        (RIGHT, "", False),
        (WRONG, BROKEN, True),
        (WRONG, ENDED, False),
        (WRONG, "pan: not finished after 100 s", False),
        (WRONG, "pan: gcc failed: no such macro, errors: 1", False),
    ],
)
@pytest.mark.promise("I13")
def test_only_a_search_that_ended_holds_and_only_a_broken_property_counts_as_found(
    run: object, said: str, ok: bool
) -> None:
    assert model.judge(run, said, 1.0).ok is ok
