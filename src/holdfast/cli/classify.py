"""`holdfast classify`: what kind of failure an error is, for programs in any language."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import click

from holdfast.cli import exit_codes
from holdfast.cli.settings import common_options
from holdfast.text import escape_controls

LINE_BYTES_MAX = 1024 * 1024
"""Classification looks at the beginning of a text; a longer line is a mistake in what was piped in."""


@click.command()
@click.option("--explain", is_flag=True, help="Add what each class was read from, and where that is documented.")
@common_options
def classify(explain: bool) -> int:
    """Read errors as JSON lines, write their classes as JSON lines.

    In: {"id", "message", "name"?, "status"?, "code"?, "provider"?, "body"?, "cause"?, "error"?, "reason"?}, where the
    last three may be objects of the same form. Out, in the same order: {"id", "reason", "coordination"}. A reason of
    null is an error that nothing is known about, or, with "coordination" true, one that is no model's failure.

    A line that is no such object is named on standard error with its number, and has no line in the output; the exit
    code is then 1.
    """
    from holdfast.model import failure
    from holdfast.model.failure_rules import SOURCES

    code = exit_codes.DONE
    for number, given in numbered(sys.stdin.buffer):
        if isinstance(given, str):
            print(f"holdfast: line {number}: {given}", file=sys.stderr)
            code = exit_codes.FAILED
            continue
        found = failure.classify(given)
        told = {"id": given.get("id"), "reason": found.reason, "coordination": found.coordination}
        if explain:
            told["evidence"] = found.evidence
            told["source"] = SOURCES[found.rule.source] if found.rule is not None else None
        # At once, since whoever asks may be waiting for it; in ASCII, so that no terminal is spoken to.
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    return code


def numbered(lines: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Each line's number and its object, or what is wrong with it; empty lines are passed over."""
    number = 0
    while line := lines.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            while line and not line.endswith(b"\n"):
                line = lines.readline(LINE_BYTES_MAX)
            yield number, f"longer than {LINE_BYTES_MAX} bytes"
        elif line.strip():
            yield number, parse(line)


def parse(line: bytes) -> dict[str, Any] | str:
    """The object in a line, or what is wrong with it in words."""
    try:
        value = json.loads(line)
    except RecursionError:
        return "nested too deeply"
    except ValueError as wrong:  # also for bytes that are not UTF-8
        return f"not JSON: {escape_controls(str(wrong))}"
    return value if isinstance(value, dict) else f"an error is a JSON object, not {_KINDS[type(value)]}"


_KINDS = {
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
