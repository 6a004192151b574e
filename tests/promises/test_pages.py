"""The documentation says what the code does, and its links lead somewhere."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
from holdfast import errors

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_drawn_pages_are_current() -> None:
    said = subprocess.run(
        [sys.executable, ROOT / "scripts" / "pages.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_the_tree_at_the_top_of_errors_names_every_error() -> None:
    defined = {
        name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.HoldfastError)
    }
    assert set(re.findall(r"\b\w+Error\b", errors.__doc__ or "")) == defined
    assert defined <= set(holdfast.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def test_the_readme_names_the_ten_promises_and_the_changelog_this_version() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\*\*(P\d+)\b", readme) == [f"P{number}" for number in range(1, 11)]
    assert f"## {holdfast.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_command_is_in_the_readme_or_the_guide_to_the_command_line() -> None:
    from holdfast.cli.root import COMMANDS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in COMMANDS if not re.search(rf"holdfast (?:--\S+ \S+ )?{command}\b", text)] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    """Design notes are put there by scripts/site.py; samples are reached from the pages that show them."""
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    listed = [str(page) for page in pages if page.parts[0] not in ("design", "samples")]
    assert [page for page in listed if not re.search(rf": {re.escape(page)}$", nav, re.MULTILINE)] == []
