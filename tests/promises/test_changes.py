"""What is written in `changes/` can become the changelog: names, kinds, words, links, and the tool that does it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FRAGMENTS = sorted(one for one in (ROOT / "changes").glob("*") if one.name != "README.md")
KINDS = [one["directory"] for one in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]["type"]]
NAME = re.compile(rf"\+?[a-z0-9][a-z0-9-]*\.(?:{'|'.join(KINDS)})\.md")


def faults_of(name: str, text: str) -> list[str]:
    faults: list[str] = []
    if not NAME.fullmatch(name):
        faults.append(f"{name}: not NAME.KIND.md with one of {', '.join(KINDS)}")
    if not text.strip() or not text.endswith("\n") or text != text.strip() + "\n":
        faults.append(f"{name}: some text, and one newline at its end")
    if re.match(r"\s*[-*#]", text):
        faults.append(f"{name}: begins with a sentence, not with a list or heading; the tool makes it an item")
    if any(len(line) > 140 for line in text.splitlines()):
        faults.append(f"{name}: a line longer than 140 characters")
    targets = [one for one in re.findall(r"\]\(([^)#]+)", text) if "://" not in one and not (ROOT / one).exists()]
    return faults + [f"{name}: {one} is not there; links begin at the root of the repository" for one in targets]


def test_each_change_is_well_formed() -> None:
    assert [fault for one in FRAGMENTS for fault in faults_of(one.name, one.read_text(encoding="utf-8"))] == []


def test_a_change_that_is_not_would_be_found() -> None:
    assert faults_of("+good.fixed.md", "It works.\n") == []
    assert len(faults_of("bad.md", "")) == 2
    assert len(faults_of("+bad.fixed.md", "- an item\n")) == 1
    assert len(faults_of("+bad.fixed.md", "See [it](docs/nowhere.md).\n")) == 1


def test_the_changes_become_a_part_of_the_changelog() -> None:
    tool = Path(sys.executable).parent / "towncrier"
    drawn = subprocess.run(
        [tool, "build", "--draft", "--version", "9.9.9"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert drawn.returncode == 0, drawn.stderr
    assert "## 9.9.9" in drawn.stdout
    said = " ".join(drawn.stdout.split())
    assert [one.name for one in FRAGMENTS if " ".join(one.read_text(encoding="utf-8").split()) not in said] == []
    assert "<!-- towncrier release notes start -->" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
