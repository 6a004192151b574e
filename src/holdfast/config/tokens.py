"""`[gateway.tokens.NAME]`: tokens besides the gateway's own, which may do less (`docs/security.md`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from holdfast.config.section import Positive, Section, VariableName
from holdfast.inbound.scope import Scope


class TokenConfig(Section):
    """A token for one program or person; `holdfast token new` makes one. Exactly one of `token_env`, `token_file` and
    `sha256` says which it is. Browsers log in with it, too, and may do as much.
    """

    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, strict=False)] = Field(
        description="What it may do: `read` (see everything), `write` (talk and stop), `approve` (answer whether a "
        "tool may run), `admin` (everything). Each of them reads."
    )
    token_env: VariableName | None = Field(default=None, description="Environment variable that holds it.")
    token_file: str | None = Field(
        default=None, description="File that holds it, which only its owner can read (mode 0600)."
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="Its SHA-256 in hex: the token itself is nowhere on this machine."
    )
    per_minute: Positive | None = Field(
        default=None, description="Changes it may ask for in a minute; more are refused (429). Unset: any number."
    )

    @model_validator(mode="after")
    def _one_source(self) -> TokenConfig:
        if sum(one is not None for one in (self.token_env, self.token_file, self.sha256)) != 1:
            raise ValueError("needs exactly one of token_env, token_file and sha256")
        return self
