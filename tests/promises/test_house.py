"""What a reader may rely on in every file of the repository."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name != "cases")  # those are data

INDEX_HOSTS = re.compile(r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|anaconda\.org")
MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(?:home/(?!me\b)|(?:Users|root|work|mnt|srv)/)\w")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b|NotImplementedError|Placeholder;")
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}


def tracked() -> list[Path]:
    """Every text file that belongs to the repository, new ones included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Path in the repository, and text."""
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in tracked()}


def lines_with(pattern: re.Pattern[str], texts: dict[str, str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_file_names_the_host_of_a_package_index(texts: dict[str, str]) -> None:
    assert lines_with(INDEX_HOSTS, texts) == []


def test_no_file_names_a_path_of_somebodys_machine(texts: dict[str, str]) -> None:
    assert lines_with(MACHINE_PATHS, texts) == []


def test_nothing_in_the_sources_is_unfinished(texts: dict[str, str]) -> None:
    assert lines_with(UNFINISHED, {name: text for name, text in texts.items() if name.startswith("src/")}) == []


def test_every_module_says_what_it_is_in_a_first_sentence() -> None:
    silent = []
    for path in MODULES:
        words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if not re.search(r"[.?!:`]\)?$", words.split("\n\n")[0].strip()):
            silent.append(path.relative_to(ROOT).as_posix())
    assert silent == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in MODULES if path.stem in VAGUE or VAGUE & set(path.parts)] == []


def test_every_test_has_a_sentence_for_a_name() -> None:
    names = [
        f"{path.name}: {node.name}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [name for name in names if re.search(r": test_[^_]*$", name)] == []
