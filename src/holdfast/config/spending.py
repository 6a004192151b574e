"""`[prices]`: what models cost, where the published table does not know or is wrong (`docs/usage.md`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from holdfast.config.section import Section
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
