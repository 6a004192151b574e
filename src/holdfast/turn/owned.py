"""Any function as the owner of a conversation: what `hf.owned(session=…)` puts around it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from holdfast.errors import InputError
from holdfast.session.key import validate_key

P = ParamSpec("P")
R = TypeVar("R")
SessionOf = str | Callable[..., str]
"""A session key, one with `{names}` of arguments in it, or a function of the same arguments that gives one."""

_NAMED = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_APART = re.compile(r"[%:\x00-\x1f\x7f-\x9f]")


def key_of(session: SessionOf, values: Mapping[str, Any]) -> str:
    """A template with the values of its names put in.

    Colons, percent signs and control characters of a value are written as `%3A`: what a caller sends as its name cannot
    become the key of another conversation.

    Raises: InputError: a name without a value, or no key comes of it.
    """
    assert isinstance(session, str)

    def put(name: re.Match[str]) -> str:
        if values.get(name[1]) is None:
            raise InputError(f"session {session!r} names {name[1]!r}, for which there is no value")
        return _APART.sub(lambda found: f"%{ord(found[0]):02X}", str(values[name[1]]))

    return validate_key(_NAMED.sub(put, session))


class Calls:
    """What is known of a function that is to own a conversation while it runs.

    Args:
        session: see `SessionOf`.

    Raises: InputError: it is a generator; the turn of one that is left half-way would never end.
    """

    def __init__(self, function: Callable[..., Any], session: SessionOf) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InputError(f"{function.__qualname__} is a generator: use `async with hf.turn(…)` inside it")
        self._session = session
        self._signature = inspect.signature(function)
        named = self._signature.parameters.get("turn")
        self.takes_turn = named is not None and named.kind is not inspect.Parameter.POSITIONAL_ONLY
        if isinstance(session, str):
            unknown = set(_NAMED.findall(session)) - set(self._signature.parameters)
            if unknown:
                raise InputError(f"{function.__qualname__} has no argument {', '.join(sorted(unknown))}")

    def session(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The key of a call."""
        if not isinstance(self._session, str):
            return validate_key(self._session(*args, **kwargs))
        if not _NAMED.search(self._session):
            return validate_key(self._session)
        bound = self._signature.bind_partial(*args, **kwargs)
        bound.apply_defaults()
        return key_of(self._session, bound.arguments)

    def dressed(self, function: Callable[P, R], call: Callable[..., Any]) -> Callable[..., R]:
        """`call` under the name of `function`, without the argument that the caller does not give."""
        wrapped: Any = wraps(function)(call)
        kept = [one for name, one in self._signature.parameters.items() if name != "turn" or not self.takes_turn]
        wrapped.__signature__ = self._signature.replace(parameters=kept)
        return cast("Callable[..., R]", wrapped)
