"""Draw the pages of docs/ that follow from the code: configuration, errors, states, promises.

python scripts/pages.py            write them (`make docs`)
python scripts/pages.py --check    exit 1 and name those that are not current
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from holdfast import errors
from holdfast.cli.exit_codes import exit_code_of
from holdfast.config.keys import ANY, Key, all_keys, dotted
from holdfast.config.model import Config
from holdfast.errors import HoldfastError
from holdfast.gateway.replies import refusal_of
from holdfast.lane import states

sys.path.insert(0, str(Path(__file__).parent))
from promises import promises_page  # beside this script, also when it is not run as one

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

DOCS = Path(__file__).parent.parent / "docs"
DRAWN = "<!-- Drawn from the code by scripts/pages.py; change it there and run `make docs`. -->"


# ── configuration ────────────────────────────────────────────────────────────────────────────────────────────────────


def configuration_page() -> str:
    """Every key, section by section, in the order of `config/model.py`."""
    parts = [
        f"""# Configuration

{DRAWN}

`holdfast.toml` is looked for in this order: `--config FILE`, the variable `HOLDFAST_CONFIG`, `./holdfast.toml`,
`holdfast.toml` in the state directory. Without one everything has its default, and `make up` works.

Every key can also be set by a variable; a variable wins over the file. NAME stands for a name of yours, in capitals,
with `_` for every other character (`HOLDFAST_LANES_WIDTHS_CRON_NESTED`). Lists are written with commas.

`holdfast config check` reports every fault at once, `holdfast config show` tells what is in force and where each value
came from, `holdfast config schema` prints the JSON schema for editors. An unknown key is a fault."""
    ]
    for table, found in groupby(all_keys(), key=lambda key: key.path[:-1]):
        keys = list(found)
        parts.append(f"## {_heading(table)}\n\n{_table_meaning(table)}\n\n{_key_table(keys)}")
    return "\n\n".join(parts) + "\n"


def _heading(table: tuple[str, ...]) -> str:
    return f"`[{dotted('NAME' if part == ANY else part for part in table)}]`"


def _table_meaning(table: tuple[str, ...]) -> str:
    """The docstring of the section behind a table; for a table of plain values there is none."""
    model: Any = Config
    for part in table:
        model = _annotation_below(model, part)
        if type(None) in get_args(model):  # a table that may be left out
            model = next(one for one in get_args(model) if _is_section(one))
    is_section = _is_section(model)
    return inspect.cleandoc(model.__doc__ or "") if is_section else "NAME is a name of yours."


def _is_section(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, BaseModel)


def _annotation_below(annotation: Any, part: str) -> Any:
    if part == ANY:
        return annotation.__args__[1]
    return annotation.model_fields[part].annotation if hasattr(annotation, "model_fields") else annotation


def _key_table(keys: list[Key]) -> str:
    rows = ["| key | default | meaning | variable |", "|---|---|---|---|"]
    for key in keys:
        name = "NAME" if key.path[-1] == ANY else key.path[-1]
        meaning = (key.field.description or "").replace("|", "\\|")
        rows.append(f"| `{name}` | {_default(key.field)} | {meaning} | `{key.variable}` |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, Mapping) and "default_in_words" in extra:
        return str(extra["default_in_words"])
    value = field.get_default(call_default_factory=True)
    return "unset" if value is None else "none" if value in ((), {}) else f"`{value}`"


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def errors_page() -> str:
    """The tree, and for each class: when, what to do, whose fault, whether the same call again can help."""
    rows = [
        "| error | when, and what its catcher does | whose fault | again? | HTTP | exit code |",
        "|---|---|---|---|---|---|",
    ]
    for _, kind in error_tree():
        sample = kind.__new__(kind)  # class attributes are all that is asked of it
        refusal = refusal_of(sample)
        words = " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split())
        rows.append(
            f"| `{kind.__name__}` | {words} | {kind.fault} | {'yes' if kind.again else 'no'} | "
            f"{refusal.status if refusal else 500} | {exit_code_of(sample)} |"
        )
    tree = "\n".join(f"{'    ' * depth}{kind.__name__}" for depth, kind in error_tree())
    return f"""# Errors

{DRAWN}

Every error that Holdfast raises on purpose is a `HoldfastError` from `holdfast.errors`, importable from `holdfast`.
Families are kept apart by type: a `CoordinationError` never counts as a model's failure, a `ProviderError` is the only
one that failover accepts, a `ResourceError` is this machine's, an `InputError` the caller's.

"Again?" says whether the same call can succeed later. "HTTP" is the status of the gateway's answer, "exit code" that of
the command line.

```text
{tree}
```

{chr(10).join(rows)}
"""


def error_tree() -> Iterator[tuple[int, type[HoldfastError]]]:
    """Depth and class, each below its base, in the order of `errors.py`."""
    defined = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HoldfastError)]
    defined.sort(key=lambda kind: inspect.getsourcelines(kind)[1])

    def below(base: type[HoldfastError], depth: int) -> Iterator[tuple[int, type[HoldfastError]]]:
        yield depth, base
        for kind in defined:
            if kind.__bases__[0] is base:
                yield from below(kind, depth + 1)

    return below(HoldfastError, 0)


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────────

LIVES = {
    "input": "An input is accepted once and ends once, in one of seven ways. Terminal states are never reopened.",
    "turn": "A turn is one attempt of one process to carry an input, or a program's own work, to its end.",
    "archive": "An archive is a transcript that was put away. Whoever finds one half-way asks the disk how far it got.",
    "delivery": "A delivery is one part of an answer on its way. Once `unknown`: no second message without a label.",
    "child": "A child is a sub-agent's task. Its inputs tell the first three states; the last two are written once.",
    "approval": "An approval is a question whether a call of a tool may run. It is void once its turn has ended.",
    "pairing": "A sender of a channel who has asked to be let in, with a code that is good for an hour.",
    "background": "A program that a tool has started and that runs on by itself.",
}


def states_page() -> str:
    """One diagram per table of `lane/states.py`."""
    parts = [
        f"""# States

{DRAWN}

What has a life has a table (`src/holdfast/lane/states.py`). A move that is not in it raises and changes nothing."""
    ]
    for machine, moves in states.TRANSITIONS.items():
        parts.append(f"## {machine.capitalize()}\n\n{LIVES[machine]}\n\n```mermaid\n{_diagram(moves)}\n```")
    return "\n\n".join(parts) + "\n"


def _diagram(moves: Mapping[tuple[str, str], str]) -> str:
    """The table's first state is where a life begins; a state without a way out ends it."""
    first = next(iter(moves))[0]
    ends = sorted(set(moves.values()) - {state for state, _ in moves})
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {state} --> {after}: {event}" for (state, event), after in moves.items()]
    return "\n".join([*lines, *(f"    {end} --> [*]" for end in ends)])


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration_page,
    "errors.md": errors_page,
    "promises.md": lambda: promises_page(DRAWN),
    "states.md": states_page,
}


def main(check: bool) -> int:
    stale = []
    for name, draw in PAGES.items():
        page = DOCS / name
        drawn = draw()
        if page.exists() and page.read_text(encoding="utf-8") == drawn:
            continue
        stale.append(name)
        if not check:
            page.write_text(drawn, encoding="utf-8")
    if stale:
        print(("not current, run `make docs`: " if check else "written: ") + ", ".join(stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
