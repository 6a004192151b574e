"""What the tables of holdfast.toml are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
T = TypeVar("T")
FrozenMap = Annotated[Mapping[str, T], AfterValidator(MappingProxyType), PlainSerializer(dict)]
Positive = Annotated[int, Field(gt=0)]


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError("must be the name of an environment variable; the secret itself stays out of this file")
    return text


VariableName = Annotated[str, AfterValidator(_variable)]


class Section(BaseModel):
    """A table of holdfast.toml: frozen, without unknown keys, without silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
