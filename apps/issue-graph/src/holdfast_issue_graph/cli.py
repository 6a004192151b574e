"""`holdfast-issue-graph URL`: the report, the picture and the data of everything that an issue hangs together with."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import msgspec

import holdfast
from holdfast_issue_graph import __version__
from holdfast_issue_graph.draw import svg_of
from holdfast_issue_graph.explore import Progress, explore
from holdfast_issue_graph.github import API_URL, GitHub, GitHubError
from holdfast_issue_graph.graph import Graph, Limits
from holdfast_issue_graph.refs import Ref, parse_start
from holdfast_issue_graph.report import report_of
from holdfast_issue_graph.summary import ask_gateway

DEMO = "harbor-works/tide#41"
"""The item that the bundled recording begins with."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for on the command line or in the page."""

    start: Ref
    limits: Limits
    state: Path
    api_url: str = API_URL
    token: str = ""
    recording: dict[str, Any] | None = None
    offline: bool = False
    gateway: str = ""
    gateway_token: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. unchanged: answers that GitHub said were still the same."""

    graph: Graph
    report: str
    svg: str
    requests: int
    unchanged: int
    heard: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        return msgspec.to_builtins(self.graph)


async def fulfil(wish: Wish, told: Callable[[Progress], None], tell: Callable[[str], None]) -> Result:
    """Explore, ask the model if there is one, and write it all down. Raises: as `explore`."""
    github = GitHub(
        api_url=wish.api_url,
        token=wish.token,
        cache=None if wish.recording is not None else wish.state / "answers",
        recording=wish.recording,
        offline=wish.offline,
        tell=tell,
    )
    try:
        async with holdfast.open(wish.state / "sessions") as hf:
            graph = await explore(hf, github, wish.start, wish.limits, told=told)
    finally:
        await github.close()
    summary, by = "", ""
    if wish.gateway and graph.items:
        tell(f"asking the model behind {wish.gateway} for a summary")
        summary, by = await ask_gateway(wish.gateway, wish.gateway_token, graph)
    report = report_of(graph, summary, by)
    return Result(graph, report, svg_of(graph), github.requests, github.unchanged, github.heard)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("url", required=False)
@click.option("--depth", default=2, show_default=True, type=click.IntRange(0, 6), help="How many steps away to go.")
@click.option("--items", default=40, show_default=True, type=click.IntRange(1, 500), help="Read at most so many.")
@click.option("--same-repository", is_flag=True, help="Follow nothing into other repositories.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report.md, graph.svg and graph.json.")
@click.option("--state", type=click.Path(path_type=Path), help="What is remembered (default: ~/.holdfast-issue-graph).")
@click.option("--offline", is_flag=True, help="Ask nothing of the network: what was read before, or a recording.")
@click.option(
    "--recording", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Answers from this file."
)
@click.option("--record", type=click.Path(path_type=Path), help="Write all answers into this file, for --recording.")
@click.option("--demo", is_flag=True, help="The bundled recording of a made-up repository; no network.")
@click.option("--gateway", default="", help="Address of a Holdfast gateway whose model writes a summary.")
@click.option("--api-url", default=API_URL, show_default=True, help="Of GitHub, or of a GitHub Enterprise server.")
@click.option("--json", "as_json", is_flag=True, help="Print the graph as JSON.")
@click.option("--serve", is_flag=True, help="A page on this machine where one pastes an address.")
@click.option("--port", default=0, help="Of that page (default: a free one).")
@click.version_option(__version__)
def main(
    url: str | None, depth: int, items: int, same_repository: bool, out: Path | None, state: Path | None, offline: bool,
    recording: Path | None, record: Path | None, demo: bool, gateway: str, api_url: str, as_json: bool, serve: bool,
    port: int,
) -> None:  # fmt: skip
    """Everything that an issue or a pull request of GitHub hangs together with: a report, a drawing, the data.

    URL is an address such as https://github.com/owner/repo/issues/12, or owner/repo#12. GITHUB_TOKEN is used if it is
    set; without one GitHub answers 60 requests an hour. Interrupted, the same command goes on where it was.
    """
    base = Wish(
        start=Ref("owner", "repo", 1),
        limits=Limits(depth=depth, items=items, elsewhere=not same_repository),
        state=state or Path.home() / ".holdfast-issue-graph",
        api_url=api_url.rstrip("/"),
        token="" if offline or demo else os.environ.get("GITHUB_TOKEN", ""),
        recording=_recording(recording, demo=demo),
        offline=offline,
        gateway=gateway.rstrip("/"),
        gateway_token=os.environ.get("HOLDFAST_TOKEN", ""),
    )
    if serve:
        from holdfast_issue_graph.page import serve as serve_page

        serve_page(base, port)
        return
    if url is None and not demo:
        raise click.UsageError("say which: an address such as https://github.com/owner/repo/issues/12, or --demo")
    try:
        start = parse_start(url or DEMO)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="URL") from None
    _run(replace(base, start=start), out, record, as_json=as_json)


def _run(wish: Wish, out: Path | None, record: Path | None, *, as_json: bool) -> None:
    screen = _Screen(sys.stderr.isatty())
    try:
        result = asyncio.run(fulfil(wish, screen.progress, screen.tell))
    except KeyboardInterrupt:
        screen.end()
        click.echo("interrupted; the same command goes on where it was", err=True)
        sys.exit(130)
    except holdfast.SessionBusyError:
        screen.end()
        click.echo(f"error: another process explores {wish.start.text}; wait for it, or look there", err=True)
        sys.exit(1)
    except (GitHubError, holdfast.HoldfastError) as exc:
        screen.end()
        click.echo(f"error: {exc}", err=True)
        sys.exit(1)
    screen.end()
    _write_out(result, out or Path(f"issue-graph-{wish.start.owner}-{wish.start.repo}-{wish.start.number}"), record)
    if as_json:
        click.echo(json.dumps(result.data, ensure_ascii=False))
    if not result.graph.items:
        sys.exit(1)


def _write_out(result: Result, out: Path, record: Path | None) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(result.report, encoding="utf-8")
        (out / "graph.svg").write_text(result.svg, encoding="utf-8")
        (out / "graph.json").write_text(json.dumps(result.data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        if record is not None:
            answers = json.dumps({"answers": result.heard}, ensure_ascii=False, indent=1)
            record.write_text(answers + "\n", encoding="utf-8")
    except OSError as exc:
        click.echo(f"error: {exc.filename}: {exc.strerror}; name another folder with --out", err=True)
        sys.exit(1)
    graph = result.graph
    click.echo(
        f"{len(graph.items)} items, {len(graph.edges)} links, {len(graph.failed)} could not be read, {len(graph.left)} "
        f"not followed; {result.requests} requests, {result.unchanged} unchanged. "
        f"{out} has report.md, graph.svg and graph.json",
        err=True,
    )


def _recording(path: Path | None, *, demo: bool) -> dict[str, Any] | None:
    """The answers of a recording. Raises: click.BadParameter: it is none."""
    if path is None and not demo:
        return None
    file = path or Path(__file__).parent / "demo.json"
    try:
        told = json.loads(file.read_bytes())
        answers = told["answers"]
    except (ValueError, KeyError, TypeError):
        raise click.BadParameter(
            f"{file} is no recording; --record FILE writes one", param_hint="--recording"
        ) from None
    if not isinstance(answers, dict) or not all(isinstance(one, dict) for one in answers.values()):
        raise click.BadParameter(f'{file}: "answers" is not an object of objects', param_hint="--recording")
    return answers


class _Screen:
    """One line that changes on a terminal; plain lines elsewhere."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal, self._was = is_terminal, ""

    def progress(self, now: Progress) -> None:
        resumed = f" (going on: {now.resumed} were read before)" if now.resumed and now.read == now.resumed else ""
        self._say(f"{now.read} of at most {now.limit} read{resumed}, now {now.doing}" if now.doing else "")

    def tell(self, text: str) -> None:
        self.end()
        click.echo(text, err=True)

    def end(self) -> None:
        if self._is_terminal and self._was:
            click.echo("\r\x1b[K", nl=False, err=True)
        self._was = ""

    def _say(self, line: str) -> None:
        if self._is_terminal:
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)
        elif line:
            click.echo(line, err=True)
        self._was = line
