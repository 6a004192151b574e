"""A caller's account: a short name of the token that was used. The token does not follow from it."""

from __future__ import annotations

import hashlib


def account_of(token: str) -> str:
    """The same token has the same name, in every process: it takes part in the dedupe of inputs."""
    return account_of_digest(hashlib.sha256(token.encode()).digest())


def account_of_digest(digest: bytes) -> str:
    """The same, of the token's SHA-256."""
    return hashlib.sha256(b"account:" + digest).hexdigest()[:16]
