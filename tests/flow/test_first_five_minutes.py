"""What a new user meets on the way to a first answer: each says what happened in a line, and what to do in another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from holdfast.cli.advice import advice_on
from holdfast.cli.root import root
from holdfast.config.load import read_config
from holdfast.errors import ConfigError
from holdfast.model.errors import translate

HOLDFAST = Path(sys.executable).parent / "holdfast"


def holdfast(tmp_path: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    usual = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return subprocess.run(
        [HOLDFAST, *words], cwd=tmp_path, env={**usual, "HOME": str(tmp_path), **env}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("detail", "says"),
    [
        ("HTTP 401 invalid_api_key: Incorrect API key provided. (openai/gpt-5)", "set OPENAI_API_KEY"),
        ("HTTP 401: invalid x-api-key (anthropic/claude-x)", "set ANTHROPIC_API_KEY"),
        ("HTTP 404 model_not_found: The model `gtp-5` does not exist (openai/gtp-5)", "--model openai/NAME"),
        (
            "connection_error: Connection error. [Errno -2] Name or service not known (proxy/x)",
            "models.providers.proxy.base_url",
        ),
        ("HTTP 429 rate_limit_exceeded: slow down (groq/llama)", "GROQ_API_KEY_2"),
        ("HTTP 402 insufficient_quota: no credit (openrouter/a/b)", "OPENROUTER_API_KEY"),
    ],
)
def test_a_failure_of_a_model_is_told_with_the_way_out(detail: str, says: str) -> None:
    assert says in str(advice_on(detail))


def test_what_says_the_way_out_itself_or_nothing_gets_no_advice() -> None:
    assert advice_on("No API key found for provider 'openai': set the environment variable OPENAI_API_KEY") is None
    assert advice_on("it broke") is None


def test_without_a_key_the_variable_is_named_in_one_line(tmp_path: Path) -> None:
    sent = holdfast(tmp_path, "send", "agent:main:main", "hello", HOLDFAST_MODELS_DEFAULT="openai/gpt-5")
    assert (sent.returncode, sent.stdout) == (1, "")
    [line] = sent.stderr.splitlines()
    assert "set the environment variable OPENAI_API_KEY" in line


def test_what_the_system_said_is_part_of_a_connection_error() -> None:
    failed = httpx.ConnectError("Connection error.")
    failed.__cause__ = OSError(-2, "Name or service not known")
    ours = translate(failed, provider="openai", model="gpt-5")
    assert str(ours) == "connection_error: Connection error. [Errno -2] Name or service not known (openai/gpt-5)"
    failed.__cause__ = OSError(111, "Connect call failed ('10.1.2.3', 8000)")
    assert "10.1.2.3" not in str(translate(failed, provider="openai", model="gpt-5"))


@pytest.mark.long
def test_without_a_network_the_cause_and_the_way_out_are_two_lines(tmp_path: Path) -> None:
    sent = holdfast(
        tmp_path, "send", "agent:main:main", "hello", HOLDFAST_MODELS_DEFAULT="openai/gpt-5", OPENAI_API_KEY="sk-x",
        HOLDFAST_MODELS_PROVIDERS_OPENAI_BASE_URL="http://127.0.0.1:1/v1", HOLDFAST_MODELS_RETRY_S="0",
    )  # fmt: skip
    assert sent.returncode == 1
    failed, advice = sent.stderr.splitlines()
    assert "Connection refused" in failed or "All connection attempts failed" in failed
    assert "models.providers.openai.base_url" in advice


@pytest.mark.parametrize(("typed", "meant"), [("start", "up"), ("snd", "send"), ("session", "sessions")])
def test_a_command_that_is_not_there_is_told_with_the_one_that_was_meant(typed: str, meant: str) -> None:
    told = CliRunner().invoke(root, [typed, "x"])
    assert told.exit_code == 2
    assert f"Did you mean `holdfast {meant}`?" in told.output


def test_a_misspelt_provider_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError, match="did you mean 'openai'"):
        read_config(None, {"HOLDFAST_MODELS_DEFAULT": "opanai/gpt-5"})
