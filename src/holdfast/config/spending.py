"""`[prices]`: what models cost, where the published table does not know or is wrong; `[spending]`: what they may cost
(`docs/usage.md`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from holdfast.config.section import FrozenMap, Section
from holdfast.errors import InputError
from holdfast.inbound.schedule import zone_of
from holdfast.model.spending import Caps, SpendingLimits
from holdfast.model.usage import MILLION, Price

Dollars = Annotated[float, Field(ge=0, le=1_000_000, strict=False)]


class PriceConfig(Section):
    """What a model costs, in US dollars for a million tokens; NAME is the model's reference, `"provider/model"`."""

    input: Dollars = Field(description="For what it reads.")
    output: Dollars = Field(description="For what it writes, thinking included.")
    cache_read: Dollars | None = Field(
        default=None, description="For what it reads from its cache. Unset: as `input`, which is never too little."
    )
    cache_write: Dollars | None = Field(
        default=None, description="For what it writes into its cache. Unset: twice `input`, the most that anybody asks."
    )

    def price(self) -> Price:
        """The same in micro-dollars."""
        read = self.input if self.cache_read is None else self.cache_read
        write = 2 * self.input if self.cache_write is None else self.cache_write
        return Price(*(round(dollars * MILLION) for dollars in (self.input, self.output, read, write)))


def _zone(name: str) -> str:
    try:
        zone_of(name)
    except InputError as wrong:
        raise ValueError(str(wrong)) from None
    return name


class CapsConfig(Section):
    """Limits of one agent, lane or session."""

    day: Dollars | None = Field(default=None, description="US dollars a day. Unset: no limit.")
    month: Dollars | None = Field(default=None, description="US dollars a month. Unset: no limit.")

    def caps(self) -> Caps:
        """The same in micro-dollars."""
        return Caps(_micros(self.day), _micros(self.month))


class SpendingConfig(CapsConfig):
    """What models may cost, for everything together. At a limit no model is asked, and whoever asked is told."""

    session_day: Dollars | None = Field(default=None, description="The same a day for each session by itself.")
    session_month: Dollars | None = Field(default=None, description="The same a month for each session by itself.")
    turn: Dollars | None = Field(default=None, description="For each turn. Unset: no limit.")
    users_share: float = Field(
        default=0.0, ge=0, le=1, description="Part of each limit that heartbeats, jobs and hooks leave for people."
    )
    warn_at: float = Field(default=0.8, gt=0, le=1, description="Part of a limit from which the log warns, once.")
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="Whose days and months they are, such as `Europe/Berlin`."
    )
    agents: FrozenMap[CapsConfig] = Field(default_factory=dict, validate_default=True)
    lanes: FrozenMap[CapsConfig] = Field(default_factory=dict, validate_default=True)
    sessions: FrozenMap[CapsConfig] = Field(default_factory=dict, validate_default=True)

    def limits(self) -> SpendingLimits:
        """The same, as turns take it."""
        return SpendingLimits(
            self.caps(), Caps(_micros(self.session_day), _micros(self.session_month)), _micros(self.turn),
            *({name: one.caps() for name, one in table.items()} for table in (self.agents, self.lanes, self.sessions)),
            users_share=self.users_share, warn_at=self.warn_at, zone=zone_of(self.timezone),
        )  # fmt: skip


def _micros(dollars: float | None) -> int | None:
    return None if dollars is None else round(dollars * MILLION)
