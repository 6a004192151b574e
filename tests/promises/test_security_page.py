"""The threat table names tests that there are, and secrets are compared in constant time."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SECRETS = re.compile(r"(?:^|_)(?:token|secret|signature|csrf|password|hmac|api_key)$")
AT_START = {
    ("gateway/hook_rules.py", "shared == token"),
    ("gateway/hook_rules.py", "secret == token"),
}
"""Comparisons of the operator's own values with each other, while a gateway starts: nobody can ask for them."""


def test_every_row_of_the_threat_table_names_tests_that_there_are() -> None:
    table = PAGE.partition("## Threats")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    for row in rows:
        named = re.findall(r"`(tests/\S+?\.py)::(test_\w+)`", row)
        assert named, row
        for path, test in named:
            assert re.search(rf"^(?:async )?def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (
                test
            )


def test_no_secret_is_compared_with_an_equals_sign() -> None:
    package = ROOT / "src" / "holdfast"
    found: set[tuple[str, str]] = set()
    for path in package.rglob("*.py"):
        if "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and all(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                sides = [node.left, *node.comparators]
                is_constant = any(isinstance(side, ast.Constant) for side in sides)
                if not is_constant and any(SECRETS.search(_name(side)) for side in sides):
                    found.add((path.relative_to(package).as_posix(), ast.unparse(node)))
    assert found <= AT_START, found - AT_START


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
