"""Taking secrets out of what tools are given and what they give back, where it is written down or shown.

Known values come from the gateway's own environment and its token; besides, whatever looks like a key of a known kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "[redacted]"
SECRET_CHARS_MIN = 8
"""Shorter ones stand in ordinary words; no key or token of anybody is that short."""
_SECRET_NAME = re.compile(
    r"(?i)(?:^|_|^pg)(?:api_?key|key|token|secret|passw(?:or)?d|passphrase|credentials?|dsn)(?:$|_)"
)
_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*://[^/\s:@]+:([^/\s@]+)@", re.IGNORECASE)
_KINDS = re.compile(
    r"""-----BEGIN\ [A-Z\ ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z\ ]*PRIVATE\ KEY-----|\Z)
    | \b(?:sk|rk)-[A-Za-z0-9_-]{16,}
    | \bxox[a-z]-[A-Za-z0-9-]{10,} | \bxapp-[A-Za-z0-9-]{10,}
    | \bgh[a-z]_[A-Za-z0-9]{20,} | \bgithub_pat_[A-Za-z0-9_]{20,} | \bglpat-[A-Za-z0-9_-]{16,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \bAIza[A-Za-z0-9_-]{30,}
    | \beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}""",
    re.VERBOSE | re.DOTALL,
)
"""Private keys; keys of model providers, Slack, GitHub, GitLab, AWS and Google; signed tokens (JWT)."""


def secrets_in(env: Mapping[str, str]) -> list[str]:
    """Values of an environment that are secrets by their name, and passwords in addresses."""
    found = [value for name, value in env.items() if _SECRET_NAME.search(name)]
    found += [match[1] for value in env.values() if (match := _ADDRESS.match(value)) is not None]
    return [value for value in found if len(value) >= SECRET_CHARS_MIN]


class Redactor:
    """Takes known secrets, and what looks like one, out of text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set()
        self._known: re.Pattern[str] | None = None
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Take these out, too, from now on; those that were known stay known, since old text may come late."""
        self._secrets |= {secret.strip() for secret in secrets if len(secret.strip()) >= SECRET_CHARS_MIN}
        known = set(self._secrets)
        known |= {json.dumps(secret, ensure_ascii=False)[1:-1] for secret in known}
        known |= {json.dumps(secret)[1:-1] for secret in known}
        ordered = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, text: str) -> str:
        """The text without them."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        return _KINDS.sub(REDACTED, text)

    def value(self, value: Any) -> Any:
        """The same for something JSON-able: each text in it, keys too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, dict):
            return {self.text(str(name)): self.value(one) for name, one in value.items()}
        return value

    def message(self, message: dict[str, Any]) -> dict[str, Any]:
        """An assistant's message whose tool calls may name a secret; the very same object if none does."""
        content = message.get("content")
        if not isinstance(content, list):
            return message
        clean = [
            {**part, "arguments": self.value(part["arguments"])}
            if isinstance(part, dict) and part.get("type") == "toolCall" and "arguments" in part
            else part
            for part in content
        ]
        return message if clean == content else {**message, "content": clean}
