"""What the tables of holdfast.toml are made of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

T = TypeVar("T")
FrozenMap = Annotated[Mapping[str, T], AfterValidator(MappingProxyType), PlainSerializer(dict)]
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A table of holdfast.toml: frozen, without unknown keys, without silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
