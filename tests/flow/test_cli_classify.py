"""`holdfast classify` as a program in another language uses it: lines in, lines out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from holdfast.cli.classify import LINE_BYTES_MAX

COMMAND = [sys.executable, "-m", "holdfast", "classify"]


def classify(given: bytes, *options: str) -> tuple[int, list[dict[str, Any]], list[str]]:
    """Exit code, the lines of standard output, the lines of standard error."""
    done = subprocess.run([*COMMAND, *options], input=given, capture_output=True, check=False, timeout=60)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode().splitlines()


def lines(*errors: object) -> bytes:
    return "".join(json.dumps(error) + "\n" for error in errors).encode()


def test_each_line_gets_its_class_in_the_same_order() -> None:
    lock = {"name": "SessionWriteLockTimeoutError", "message": "session file locked (timeout 60000ms): pid 7"}
    given = lines(
        {"id": 1, "message": "slow down", "status": 429},
        {"id": "two", "message": "wrapper", "cause": {"code": "insufficient_quota"}},
        {"id": None, "message": "request failed", "error": lock},
        {"id": 4, "message": "quota", "status": 429, "cause": lock},
        {"id": 5, "message": "wrapper", "reason": "prompt is too long: 9 tokens > 8 maximum"},
        {"id": 6, "message": "Key limit exceeded", "provider": "openrouter"},
        {"message": "hello"},
    )
    code, out, err = classify(given)
    assert (code, err) == (0, [])
    assert out == [
        {"id": 1, "reason": "rate_limit", "coordination": False},
        {"id": "two", "reason": "billing", "coordination": False},
        {"id": None, "reason": None, "coordination": True},
        {"id": 4, "reason": "rate_limit", "coordination": False},
        {"id": 5, "reason": "context_overflow", "coordination": False},
        {"id": 6, "reason": "billing", "coordination": False},
        {"id": None, "reason": None, "coordination": False},
    ]


def test_the_flag_for_programs_changes_nothing() -> None:
    given = lines({"id": 1, "status": 529})
    assert classify(given, "--json") == classify(given)


def test_explain_adds_what_the_class_was_read_from() -> None:
    _, [out], _ = classify(
        lines({"id": 1, "status": 400, "body": {"error": {"message": "prompt is too long"}}}), "--explain"
    )
    assert out["evidence"] == "status 400, text 'prompt is too long'"
    assert "docs.claude.com" in out["source"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"nope", "not JSON"),
        (b"[1]", "an error is a JSON object, not a list"),
        (b'"text"', "not a string"),
        (b"null", "not null"),
        (b"7", "not a number"),
        (b'{"id": "\xff"}', "not JSON"),
        (b'{"id": 1', "not JSON"),
        (b'{"cause":' * 100_000, "nested too deeply"),
        (b"a" * (3 * LINE_BYTES_MAX), "longer than"),
    ],
    ids=["words", "list", "string", "null", "number", "half a character", "cut off", "deep", "long"],
)
def test_a_bad_line_is_named_and_the_others_are_classified(bad: bytes, said: str) -> None:
    given = lines({"id": 1, "status": 429}) + b"\n" + bad + b"\n" + lines({"id": 4, "status": 401})
    code, out, err = classify(given)
    assert code == 1
    assert [one["id"] for one in out] == [1, 4]
    [complaint] = err
    assert complaint.startswith("holdfast: line 3: ")
    assert said in complaint


def test_nothing_in_is_nothing_out() -> None:
    assert classify(b"") == (0, [], [])
    assert classify(b"\n\n") == (0, [], [])


def test_no_text_of_others_speaks_to_the_terminal() -> None:
    code, [out], err = classify(b'{"id": "\\u001b[2J\\u202e", "status": 429}\n', "--explain")
    assert (code, err, out["id"]) == (0, [], "\x1b[2J\u202e")
    raw = subprocess.run(COMMAND, input=lines({"id": "\x1b[2J\u202e"}), capture_output=True, check=True).stdout
    assert raw.isascii()
    assert b"\x1b" not in raw


def test_an_answer_comes_before_the_next_line_does() -> None:
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for number in range(3):
            running.stdin.write(lines({"id": number, "status": 429}))
            running.stdin.flush()
            assert json.loads(running.stdout.readline())["id"] == number
        running.stdin.close()
        assert running.wait(30) == 0


def test_unknown_options_are_a_mistake_of_usage() -> None:
    assert classify(b"", "--nonsense")[0] == 2


def test_the_command_loads_neither_sdks_nor_the_configuration() -> None:
    code = "import sys; from holdfast.cli.main import run; run(['classify']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], input=lines({"status": 429}), capture_output=True, check=True)
    loaded = set(done.stderr.decode().split())
    heavy = {"pydantic", "pydantic_ai", "openai", "anthropic", "boto3", "httpx", "rich", "asyncio", "sqlite3"}
    assert loaded & heavy == set()
