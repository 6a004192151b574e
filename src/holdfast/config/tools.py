"""`[tools]`: which tools there are, and who may do what with them (`docs/tools.md`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from holdfast.config.section import FrozenMap, Positive, Section
from holdfast.config.servers import ServerConfig, check_names
from holdfast.errors import InputError
from holdfast.inbound.event import Route
from holdfast.tool.approval import TIMEOUT_S
from holdfast.tool.exec import TIMEOUT_S as EXEC_S
from holdfast.tool.exec import TIMEOUT_S_MAX as EXEC_S_MAX
from holdfast.tool.exec import ExecSettings
from holdfast.tool.gate import GateSettings
from holdfast.tool.loops import CALLS_MAX, PING_PONG_MAX, SAME_MAX, LoopLimits
from holdfast.tool.policy import EFFECTS, Policy, Rules
from holdfast.tool.process import OUTPUT_BYTES_MAX, PROCESSES_MAX

_NAME = re.compile(r"[A-Za-z0-9_*?-]{1,64}")


def _pattern(text: str) -> str:
    if text.startswith("@"):
        if text[1:] not in EFFECTS:
            raise ValueError(f"no group {text!r}; there are {', '.join(f'@{one}' for one in EFFECTS)}")
    elif not _NAME.fullmatch(text):
        raise ValueError("must be the name of a tool, a pattern with `*`, or a group such as @read")
    return text


def _function(text: str) -> str:
    module, colon, name = text.partition(":")
    if not (colon and module and name):
        raise ValueError('must be "module:function", such as "my_tools:weather"')
    return text


def _route_text(text: str) -> str:
    try:
        Route.parse(text)
    except InputError as exc:
        raise ValueError(str(exc)) from None
    return text


Patterns = tuple[Annotated[str, AfterValidator(_pattern)], ...]
_RULE = "Names, patterns with `*`, or groups: `@none`, `@read`, `@change`, `@run`, `@send`."


class RulesConfig(Section):
    """Rules for tools: of a lane, a channel or an agent."""

    allow: Patterns = Field(default=(), strict=False, description="May run.")
    ask: Patterns = Field(default=(), strict=False, description="A person is asked each time.")
    deny: Patterns = Field(default=(), strict=False, description="Never run. Wins over everything else.")

    def rules(self) -> Rules:
        return Rules(self.allow, self.ask, self.deny)


class ExecConfig(Section):
    """The tool `exec`: programs."""

    timeout_s: Positive = Field(default=EXEC_S, description="Seconds a program may run unless a call says otherwise.")
    timeout_s_max: Positive = Field(default=EXEC_S_MAX, description="The most that a call may say.")
    background_s_max: Positive = Field(default=3600, description="Seconds one may run in the background.")
    output_bytes_max: Annotated[int, Field(ge=1024)] = Field(
        default=OUTPUT_BYTES_MAX, description="Of its output, bytes that are kept: one half from either end."
    )
    processes_max: Positive = Field(default=PROCESSES_MAX, description="Processes of one call at once; then all end.")
    env: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Variables of the gateway that programs get besides the usual harmless ones.",
    )


class LoopsConfig(Section):
    """When calls go in circles; the fourth such call of a turn ends it."""

    same_max: Positive = Field(default=SAME_MAX, description="The same call with the same arguments in one turn.")
    ping_pong_max: Positive = Field(default=PING_PONG_MAX, description="Times that two calls may take turns.")
    calls_max: Positive = Field(default=CALLS_MAX, description="Calls of one turn.")


class ToolsConfig(Section):
    """What agents may do (`docs/tools.md`). Unless something is said here, what only reads may run, people who write
    directly are asked for anything else, and everybody else gets nothing but reading.
    """

    allow: Patterns = Field(default=(), strict=False, description=f"May run. {_RULE}")
    ask: Patterns = Field(default=(), strict=False, description="A person is asked each time.")
    deny: Patterns = Field(default=(), strict=False, description="Never run, for nobody.")
    lanes: FrozenMap[RulesConfig] = Field(default_factory=dict, validate_default=True)
    channels: FrozenMap[RulesConfig] = Field(default_factory=dict, validate_default=True)
    agents: FrozenMap[RulesConfig] = Field(default_factory=dict, validate_default=True)
    trusted_groups: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Sessions of groups whose members are all trusted: keys, or patterns with `*`.",
    )
    approvers: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Sessions from which questions of all others may be answered: keys, or patterns with `*`. A "
        "conversation that is trusted answers its own.",
    )
    approval_timeout_s: Positive = Field(default=int(TIMEOUT_S), description="Seconds a person has to answer.")
    approval_route: Annotated[str, AfterValidator(_route_text)] | None = Field(
        default=None, description='Where questions are put that cannot be put where they arise, "channel:target".'
    )
    known_targets: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description='Targets of `message` that are no strangers: "channel:target", or patterns with `*`.',
    )
    functions: tuple[Annotated[str, AfterValidator(_function)], ...] = Field(
        default=(), strict=False, description='Python functions that become tools, as "module:function".'
    )
    plugins: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Installed entry points of the group `holdfast.tools` that are loaded: names, or patterns with "
        "`*`. Empty: none.",
    )
    servers: Annotated[FrozenMap[ServerConfig], AfterValidator(check_names)] = Field(
        default_factory=dict, validate_default=True
    )
    exec: ExecConfig = Field(default_factory=ExecConfig)
    loops: LoopsConfig = Field(default_factory=LoopsConfig)

    def gate(self, open_channels: Iterable[str] = ()) -> GateSettings:
        """How calls are let through, as the gate takes it. `open_channels`: where anybody may write directly."""
        return GateSettings(
            policy=Policy(
                Rules(self.allow, self.ask, self.deny),
                _rules(self.lanes),
                _rules(self.channels),
                _rules(self.agents),
                self.trusted_groups,
                frozenset(open_channels),
            ),
            loops=LoopLimits(self.loops.same_max, self.loops.ping_pong_max, self.loops.calls_max),
            timeout_s=float(self.approval_timeout_s),
            notice_route=None if self.approval_route is None else Route.parse(self.approval_route),
        )

    def programs(self) -> ExecSettings:
        """How programs are run."""
        own = self.exec
        return ExecSettings(
            own.timeout_s, own.timeout_s_max, own.background_s_max, own.output_bytes_max, own.processes_max, own.env
        )


def _rules(tables: Mapping[str, RulesConfig]) -> dict[str, Rules]:
    return {name: one.rules() for name, one in tables.items()}
