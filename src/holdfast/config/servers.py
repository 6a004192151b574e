"""`[tools.servers.NAME]`: MCP servers whose tools agents may use (`docs/tools.md`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from holdfast.config.channels import Names, VariableName
from holdfast.config.section import FrozenMap, Positive, Section
from holdfast.errors import InputError
from holdfast.tool.policy import Effect
from holdfast.tool.process import check_argv, clean_env
from holdfast.tool.servers import START_TIMEOUT_S, TIMEOUT_S, ServerSettings

_NAME = re.compile(r"[a-z][a-z0-9-]{0,23}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")


def _argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return check_argv(list(argv)) if argv else argv
    except InputError as wrong:
        raise ValueError(str(wrong).removeprefix("argv: ")) from None


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http:// or https://")
    if parts.username or parts.password:
        raise ValueError("must not hold a password; `token_env` or `headers` name variables that do")
    return text


def _headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    wrong = [name for name in headers if not _HEADER.fullmatch(name)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not the name of a header")
    return headers


class ServerConfig(Section):
    """One MCP server, a program or an address. Its tools are called `NAME_tool`."""

    command: Annotated[tuple[str, ...], AfterValidator(_argv)] = Field(
        default=(), strict=False, description="A program that is one: itself and its arguments. Or `url`."
    )
    url: Annotated[str, AfterValidator(_url)] | None = Field(
        default=None, description="Where one is reached (streamable HTTP; SSE if the path ends with `/sse`)."
    )
    cwd: str | None = Field(
        default=None, description="Folder the program works in, its HOME too. Unset: `servers/NAME` in the state."
    )
    env: Annotated[tuple[VariableName, ...], Field(strict=False)] = Field(
        default=(), description="Variables of the gateway that the program gets besides the usual harmless ones."
    )
    token_env: VariableName | None = Field(
        default=None, description="Environment variable with the bearer token for `url`."
    )
    headers: Annotated[FrozenMap[VariableName], AfterValidator(_headers)] = Field(
        default_factory=dict,
        validate_default=True,
        description="Further headers for `url`: each names the environment variable with its value.",
    )
    timeout_s: Positive = Field(default=TIMEOUT_S, description="Seconds a call may take.")
    start_timeout_s: Positive = Field(
        default=START_TIMEOUT_S, description="Seconds it may take to start; the first turn waits for it no longer."
    )
    effect: Effect = Field(
        default="change", description="What its tools do to the world, as policies see it: `none`, `read`, `change`, "
        "`run`, `send`.",
    )  # fmt: skip
    read: Names = Field(default=(), description="Its tools that only read, by its own names: patterns with `*`.")
    agents: Annotated[tuple[str, ...], Field(strict=False)] | None = Field(
        default=None, description="Agents that get its tools. Unset: all."
    )

    @model_validator(mode="after")
    def _is_one_of_both(self) -> ServerConfig:
        faults: list[str] = []
        if bool(self.command) == (self.url is not None):
            faults.append("needs either `command` or `url`")
        if self.command and (self.token_env or self.headers):
            faults.append("`token_env` and `headers` are for `url`; a program gets its secrets by `env`")
        if self.url is not None and (self.env or self.cwd):
            faults.append("`env` and `cwd` are for `command`")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def settings(self, name: str, state: str, env: Mapping[str, str]) -> ServerSettings:
        """As the gateway runs it. Nothing is read: `env` is the gateway's own environment."""
        wanted = [*self.env, *self.headers.values(), *([self.token_env] if self.token_env else [])]
        cwd = str(Path(self.cwd or Path(state) / "servers" / name).absolute())
        headers = {header: env.get(variable, "") for header, variable in self.headers.items()}
        if self.token_env:
            headers["Authorization"] = f"Bearer {env.get(self.token_env, '')}"
        return ServerSettings(
            name, self.command, self.url or "", cwd,
            clean_env(env, home=cwd, more=self.env) if self.command else {}, headers,
            tuple(one for one in wanted if not env.get(one)), self.timeout_s, self.start_timeout_s, self.effect,
            self.read, self.agents,
        )  # fmt: skip


def check_names(servers: Mapping[str, Any]) -> Mapping[str, Any]:
    """No underscore: the first one in a tool's name ends the server's, so that none can speak for another."""
    wrong = [name for name in servers if not _NAME.fullmatch(name)]
    if wrong:
        raise ValueError(
            f"{', '.join(map(repr, wrong))}: a name has lower-case letters, digits and `-`, a letter first, at most 24"
        )
    return servers
