"""Users' own Python functions as tools: named as "module:function", or installed under the entry point group
`holdfast.tools`.

A function is a plain one with annotations; its first sentence tells the model what it does, its parameters make the
schema. One that is no coroutine runs on a thread, which a time limit cannot stop: it goes on, and nobody waits for it.
A parameter annotated `ToolCall` gets the call itself. `tool` says what it does to the world:

    @tool(effect="read")
    def weather(city: str) -> str:
        "The weather in a city now."
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from holdfast.errors import InputError
from holdfast.model.client import ToolSpec
from holdfast.tool.policy import Effect
from holdfast.turn.tools import Tool, ToolCall

GROUP = "holdfast.tools"
DESCRIPTION_CHARS_MAX = 1000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_SAID = "__holdfast_tool__"
F = TypeVar("F", bound=Callable[..., Any])


def tool(
    *, effect: Effect = "change", restart_safe: bool = False, seconds_max: float | None = None, name: str | None = None
) -> Callable[[F], F]:
    """Say of a function what it does as a tool; the function stays what it is. Arguments: as of `Tool`."""

    def mark(function: F) -> F:
        said = {"effect": effect, "restart_safe": restart_safe, "seconds_max": seconds_max, "name": name}
        setattr(function, _SAID, said)
        return function

    return mark


def load_tools(functions: Iterable[str] = (), plugins: Iterable[str] = ()) -> list[Tool]:
    """The tools that a configuration names.

    Args:
        functions: as "module:function". plugins: names of entry points, or patterns with `*`.

    Raises:
        InputError: one cannot be loaded; names it, and says why.
    """
    patterns = tuple(plugins)
    found = [one for place in functions for one in _tools_of(_load(place), place)]
    for point in sorted(entry_points(group=GROUP), key=lambda one: one.name) if patterns else ():
        if any(fnmatchcase(point.name, one) for one in patterns):
            place = f"entry point {point.name!r} ({point.value})"
            try:
                thing = point.load()
            except Exception as exc:  # somebody else's module may raise anything
                raise InputError(f"tools: {place} cannot be loaded: {type(exc).__name__}: {exc}") from exc
            found += _tools_of(thing, place)
    names = [one.spec.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"tools: several are called {', '.join(twice)}; `@tool(name=…)` gives one another name")
    return found


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    try:
        loaded = importlib.import_module(module)
    except Exception as exc:  # somebody else's module may raise anything
        raise InputError(f"tools: {place}: module {module!r} cannot be loaded: {type(exc).__name__}: {exc}") from exc
    if not hasattr(loaded, name):
        raise InputError(f"tools: {place}: module {module!r} has no {name!r}")
    return getattr(loaded, name)


def _tools_of(thing: Any, place: str) -> list[Tool]:
    """A function, a `Tool`, or several of them."""
    if isinstance(thing, Tool):
        return [thing]
    if isinstance(thing, list | tuple):
        return [one for part in thing for one in _tools_of(part, place)]
    if inspect.isroutine(thing):
        return [as_tool(thing, place)]
    raise InputError(f"tools: {place} is a {type(thing).__name__}; a function, a Tool or a list of them is needed")


def as_tool(function: Callable[..., Any], place: str = "") -> Tool:
    """A function as a tool.

    Raises:
        InputError: a parameter has no annotation or one that no schema can be made of; it has no description.
    """
    said: dict[str, Any] = getattr(function, _SAID, {})
    place = place or getattr(function, "__qualname__", repr(function))
    name = said.get("name") or getattr(function, "__name__", "")
    if not _NAME.fullmatch(name):
        raise InputError(f"tools: {place}: {name!r} is no name for a tool; `@tool(name=…)` gives it one")
    words = inspect.getdoc(function)
    if not words:
        raise InputError(f"tools: {place} has no docstring: say what it does, for the model")
    arguments, call_name = _arguments(function, name, place)
    description = " ".join(words.split("\n\n")[0].split())[:DESCRIPTION_CHARS_MAX]

    async def run(call: ToolCall) -> Any:
        try:
            given = arguments.model_validate(call.arguments)
        except ValidationError as wrong:
            faults = "; ".join(f"{'.'.join(map(str, one['loc'])) or name}: {one['msg']}" for one in wrong.errors())
            raise InputError(faults) from None
        values = {field: getattr(given, field) for field in type(given).model_fields}
        if call_name is not None:
            values[call_name] = call
        if inspect.iscoroutinefunction(function):
            return _plain(await function(**values))
        return _plain(await asyncio.to_thread(function, **values))

    schema = arguments.model_json_schema()
    schema.pop("title", None)
    return Tool(
        ToolSpec(name, description, schema), run, restart_safe=said.get("restart_safe", False),
        seconds_max=said.get("seconds_max"), effect=said.get("effect", "change"),
    )  # fmt: skip


def _arguments(function: Callable[..., Any], name: str, place: str) -> tuple[type[BaseModel], str | None]:
    """The model of a function's parameters, and the name of the one that gets the call."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as exc:  # an annotation may be any expression
        raise InputError(f"tools: {place}: its annotations cannot be read: {exc}") from exc
    fields: dict[str, Any] = {}
    call_name: str | None = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InputError(f"tools: {place}: {parameter} cannot be given by name")
        if parameter.name not in hints:
            raise InputError(f"tools: {place}: parameter {parameter.name!r} has no annotation")
        if hints[parameter.name] is ToolCall:
            call_name = parameter.name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    try:
        made = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        made.model_json_schema()
    except Exception as exc:  # what pydantic cannot describe, in its words
        raise InputError(f"tools: {place}: no schema can be made of its parameters: {exc}") from exc
    return made, call_name


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
