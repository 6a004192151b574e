"""What every command shares: which state, which configuration, text or JSON. Accepted before and after the command."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.errors import InputError

if TYPE_CHECKING:
    from holdfast.config import Loaded

SECONDS_MAX = 10 * 366 * 86_400.0
"""Ten years: longer than anybody means, and every store and clock can count that far."""

F = TypeVar("F", bound=Callable[..., Any])

STATE_HERE = Path("state")
STATE_AT_HOME = ".holdfast"
CONFIG_NAME = "holdfast.toml"
LOCK_PROTOCOL_VARIABLE = "HOLDFAST_SESSION_LOCK_PROTOCOL"


@dataclass(slots=True)
class Settings:
    """The common options as given; None: not given. Everything else is found out when a command asks for it."""

    state_given: str | None = None
    config_given: str | None = None
    json: bool = False
    is_own_process: bool = False

    @property
    def state(self) -> str:
        """The state directory or URL: --state, else HOLDFAST_STATE, else ./state if it is there, else ~/.holdfast."""
        given = self.state_given or os.environ.get("HOLDFAST_STATE")
        if given:
            return given
        return str(STATE_HERE if STATE_HERE.is_dir() else Path.home() / STATE_AT_HOME)

    @property
    def state_dir(self) -> Path | None:
        """The state directory; None for a URL."""
        return None if "://" in self.state else Path(self.state)

    @property
    def node_dir(self) -> Path:
        """The folder of this machine where a gateway of the state keeps its token and its address."""
        from holdfast.node_dir import node_dir

        return node_dir(self.state)

    def existing_state(self) -> str:
        """The state of a command that only reads or stops: it must not be made by looking at it.

        Raises:
            InputError: there is none.
        """
        if self.state_dir is not None and not self.state_dir.exists():
            raise InputError(
                f"no state at {self.state}: start with `holdfast up` or `send`, or name another with --state"
            )
        return self.state

    def config_file(self) -> Path | None:
        """The file to read: --config, else HOLDFAST_CONFIG, ./holdfast.toml, the state directory's, or none.

        A file that was named is returned whether it exists or not, so that reading it says what is wrong.
        """
        named = self.config_given or os.environ.get("HOLDFAST_CONFIG")
        if named:
            return Path(named)
        candidates = [Path(CONFIG_NAME), self.node_dir / CONFIG_NAME]
        return next((candidate for candidate in candidates if candidate.exists()), None)

    def load(self) -> Loaded:
        """The configuration in force. Raises ConfigError."""
        from holdfast.config import read_config

        return read_config(self.config_file(), os.environ)

    def lock_terms(self) -> dict[str, Any]:
        """How the write lock is taken, as arguments of `holdfast.open`, for commands that need nothing else of the
        configuration. That is read, which takes longest, only if there is any.
        """
        if self.config_file() is None and LOCK_PROTOCOL_VARIABLE not in os.environ:
            return {}
        session = self.load().config.session
        return {"lock_protocol": session.lock_protocol, **session.write_lock.model_dump()}

    def stand_beside_openclaw(self) -> None:
        """Call it before anything is read or opened by a command that may write to transcripts. With `lock_protocol =
        "openclaw"` OpenClaw must take the process for one of its own, which it does by the command line: this starts
        it once more, as the same process, with an argument that Python ignores.
        """
        if not self.is_own_process or self.lock_terms().get("lock_protocol", "none") != "openclaw":
            return
        from holdfast.session.lock_file import looks_like_openclaw

        if sys.platform == "linux" and not looks_like_openclaw(sys.orig_argv):  # elsewhere OpenClaw does not look
            os.execv(sys.executable, [sys.executable, "-X", "openclaw", *sys.orig_argv[1:]])  # noqa: S606  # our own


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        settings = context.find_root().ensure_object(Settings)
        if value is not None and value is not False:
            setattr(settings, name, value)  # the command is parsed after the group, so what stands closer wins

    return callback


def common_options(command: F) -> F:
    """Adds --state, --config and --json."""
    options = (
        click.option(
            "--state",
            metavar="DIR|URL",
            expose_value=False,
            callback=_remember("state_given"),
            help="State directory [HOLDFAST_STATE, ./state if it is there, ~/.holdfast].",
        ),
        click.option(
            "--config",
            metavar="FILE",
            expose_value=False,
            callback=_remember("config_given"),
            help="Configuration [HOLDFAST_CONFIG, ./holdfast.toml, STATE/holdfast.toml].",
        ),
        click.option(
            "--json", is_flag=True, expose_value=False, callback=_remember("json"), help="Output for programs."
        ),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


class Seconds(click.FloatRange):
    """An option that is a span of time: a number from `min` on, and not "nan", which every comparison lets pass."""

    def __init__(self, *, min: float) -> None:  # noqa: A002  # click's word
        super().__init__(min=min, max=SECONDS_MAX)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


pass_settings = click.make_pass_decorator(Settings, ensure=True)
