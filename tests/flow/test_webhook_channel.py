"""Results of jobs, posted to a real server: what arrives, and what becomes of a post that does not."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from holdfast.channel.channel import SendRequest, Sent
from holdfast.channel.webhook import WebhookChannel
from holdfast.config import Config
from holdfast.errors import ChannelRefusedError, SendUnknownError
from holdfast.gateway.app import Parts, build_gateway, open_handle
from holdfast.inbound import orders
from tests.flow.test_timers import JOB

TARGET = "cron:job"


@dataclass
class Receiver:
    """A server that remembers what was posted. `statuses`: its next answers; 0 closes the connection without one."""

    posts: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""

    async def address_of(self, target: str) -> str | None:
        return self.url if target == TARGET else None


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            one.posts.append(
                (self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(body))
            )
            status = one.statuses.pop(0) if one.statuses else 204
            if status == 0:
                self.connection.close()
                return
            self.send_response(status)
            for name, value in one.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    one.url = f"http://127.0.0.1:{server.server_address[1]}/hook?token=secret"
    yield one
    server.shutdown()
    server.server_close()
    thread.join()


def post(label: str | None = None) -> SendRequest:
    return SendRequest("d_1", TARGET, "news: ü", label)


async def test_a_result_arrives_with_its_key_and_where_it_is_from(receiver: Receiver) -> None:
    channel = WebhookChannel(receiver.address_of)
    assert isinstance(await channel.send(post()), Sent)
    await channel.send(post("(may be a duplicate)"))
    [(path, headers, body), (_, _, again)] = receiver.posts
    assert (path, headers["idempotency-key"], headers["content-type"]) == (
        "/hook?token=secret",
        "d_1",
        "application/json",
    )
    assert body == {"id": "d_1", "job": "job", "text": "news: ü", "possible_duplicate": False}
    assert again["possible_duplicate"] is True


@pytest.mark.parametrize(("status", "permanent"), [(500, False), (503, False), (429, False), (404, True), (301, True)])
async def test_an_answer_that_is_no_confirmation_is_a_refusal(receiver: Receiver, status: int, permanent: bool) -> None:
    receiver.statuses, receiver.headers = [status], {"Retry-After": "7"}
    with pytest.raises(ChannelRefusedError) as refused:
        await WebhookChannel(receiver.address_of).send(post())
    assert (refused.value.permanent, refused.value.retry_after_s) == (permanent, 7.0)
    assert "secret" not in str(refused.value)


async def test_the_wait_that_is_asked_for_may_be_a_date(receiver: Receiver) -> None:
    dates = {"Date": "Wed, 25 Nov 2026 06:30:00 GMT", "Retry-After": "Wed, 25 Nov 2026 06:32:00 GMT"}
    receiver.statuses, receiver.headers = [429], dates
    with pytest.raises(ChannelRefusedError) as refused:
        await WebhookChannel(receiver.address_of).send(post())
    assert refused.value.retry_after_s == 120.0


@pytest.mark.parametrize("status", [502, 504])
async def test_a_proxy_that_had_no_answer_leaves_the_fate_unknown(receiver: Receiver, status: int) -> None:
    """The receiver may have acted upon the post before its answer was lost: the next copy has to say so."""
    receiver.statuses = [status]
    with pytest.raises(SendUnknownError, match=str(status)) as unknown:
        await WebhookChannel(receiver.address_of).send(post())
    assert len(receiver.posts) == 1
    assert "secret" not in str(unknown.value)


async def test_a_connection_that_breaks_leaves_the_fate_unknown_and_one_that_never_was_does_not(
    receiver: Receiver,
) -> None:
    receiver.statuses = [0]
    with pytest.raises(SendUnknownError):
        await WebhookChannel(receiver.address_of).send(post())

    async def nobody(_: str) -> str:
        return "http://127.0.0.1:1/"

    with pytest.raises(ChannelRefusedError) as refused:
        await WebhookChannel(nobody).send(post())
    assert not refused.value.permanent
    with pytest.raises(ChannelRefusedError) as gone:
        await WebhookChannel(receiver.address_of).send(replace(post(), target="cron:gone"))
    assert gone.value.permanent


async def test_a_job_of_a_gateway_posts_its_result_once_and_its_address_is_in_no_list(
    tmp_path: Path, receiver: Receiver
) -> None:
    config = Config()
    async with (
        open_handle(config, tmp_path / "state", kind="gateway") as hf,
        build_gateway(config, hf, token="t" * 40, host="127.0.0.1", parts=Parts()),
    ):
        await orders.add_job(hf, replace(JOB, deliver="webhook", url=receiver.url))
        await orders.run_now(hf, TARGET)
        end = time.monotonic() + 30
        while not (runs := await hf.store.timer_runs()) or runs[0].delivery != "sent":
            assert time.monotonic() < end, runs
            await asyncio.sleep(0.05)
        assert runs[0].state == "ok"
        assert [body["text"] for _, _, body in receiver.posts] == ["echo #1: look at the mail"]
        assert "secret" not in repr(await hf.deliveries())
        assert await hf.session("agent:main:cron:job").path() is not None
