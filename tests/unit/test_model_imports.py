"""What the model layer loads, and when."""

from __future__ import annotations

import subprocess
import sys

import pytest

from holdfast.errors import InputError
from holdfast.model import catalog
from holdfast.model.catalog import ModelTarget
from holdfast.model.pydantic_ai import require

HEAVY = ("pydantic_ai", "openai", "anthropic", "boto3", "botocore", "google.genai", "httpx", "httpx2", "pydantic")


def test_nothing_heavy_is_loaded_before_the_first_request() -> None:
    """In a fresh interpreter, because this one has loaded them already."""
    code = f"""
import sys
import holdfast.model.client, holdfast.model.failover, holdfast.model.failure, holdfast.model.catalog
import holdfast.model.errors, holdfast.model.demo, holdfast.testing.model
from holdfast.model.clients import ModelClients
ModelClients(env={{"OPENAI_API_KEY": "k"}}).client_for("openai/gpt-5")
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_sdk_names_what_to_install() -> None:
    target = ModelTarget("bedrock", "amazon.nova-pro-v1:0", catalog.BEDROCK)
    with pytest.raises(InputError, match=r'pip install "holdfast\[bedrock\]"'):
        require(target, "no_such_sdk", "bedrock")
