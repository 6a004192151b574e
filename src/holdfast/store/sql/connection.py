"""What the ledger's statements need of a connection: the part of `sqlite3` that they use, by its names.

Placeholders are `?`, `?1` and `:name`. A cursor has fetched nothing that another statement on the same connection could
disturb. A row is indexed by column name or by place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Row(Protocol):
    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...

    def keys(self) -> list[str]: ...


class Cursor(Protocol):
    @property
    def rowcount(self) -> int:
        """Rows that a statement has changed."""
        ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Inside a transaction, or for reading only."""

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ..., /) -> Cursor: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor: ...


class Asks(Protocol):
    """Reading beside the writer."""

    async def ask(self, question: Callable[[Any], T]) -> T:
        """Raises ResourceError: the ledger cannot be read."""
        ...
