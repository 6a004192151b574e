"""Every promise and every invariant has a test or a run that holds it, and whatever is named exists."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("promises_of_holdfast", ROOT / "scripts" / "promises.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["promises_of_holdfast"] = module
    spec.loader.exec_module(module)
    return module


promises = load()
HOLDERS = promises.holders()


@pytest.mark.parametrize("name", promises.NAMES)
def test_a_promise_has_a_test_that_holds_it(name: str) -> None:
    assert [one.name for one in HOLDERS if one.is_test and name in one.holds]


def test_only_known_promises_are_named_and_each_mark_names_one() -> None:
    assert [one for one in HOLDERS if not one.holds or set(one.holds) - set(promises.NAMES)] == []


def test_a_mark_stands_on_a_test_that_is_collected() -> None:
    """Not on a fixture or a helper, nor in a file that pytest does not look into."""
    odd = [
        one
        for one in HOLDERS
        if one.is_test and not re.search(r"tests/.*/test_\w+\.py test_", f"{one.path} {one.name}")
    ]
    assert odd == []


def test_a_run_that_is_named_can_be_started() -> None:
    """`make …` has its target, `holdfast …` its command."""
    from holdfast.cli.root import COMMANDS

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    known = {"make": targets, "holdfast": set(COMMANDS)}
    runs = [one.name.split() for one in HOLDERS if not one.is_test]
    assert runs
    assert [words for words in runs if len(words) < 2 or words[1] not in known.get(words[0], set())] == []


def test_the_promises_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"\*\*(P\d+) (.+?)\*\*", readme))
    assert set(told) == set(promises.PROMISES)
    assert {
        name: words.rstrip(".")
        for name, words in told.items()
        if not promises.PROMISES[name].startswith(words.rstrip("."))
    } == {}
