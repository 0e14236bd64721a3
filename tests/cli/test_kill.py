"""``cancel-worker kill`` on a real broker: with a worker's events from a script, and with a worker and a venue."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pytest
from aio_pika.abc import AbstractIncomingMessage

from tests.cli.conftest import Ended, broker_settings, clean_environment, cli, finish, start, venue_settings
from tests.cli.test_cancel import working
from tests.cli.test_tail import declared
from tests.support.broker import Broker
from tests.support.events import ledger, make_event, publish_event
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Script, Simulator, Streams
from worker.wire.event import CodeError, Event, InputError
from worker.wire.timestamp import parse_utc

pytestmark = pytest.mark.process


async def taken(broker: Broker) -> AbstractIncomingMessage:
    """The mass cancel as it came to the kill lane."""
    [message] = await broker.take(broker.name("cancel.kill"), 1, 20 * SECOND)
    return message


async def answered(
    broker: Broker, settings: dict[str, str], arguments: Sequence[str], *events: Event
) -> tuple[AbstractIncomingMessage, Ended]:
    """``kill`` and a worker that says this."""
    process = await start(["kill", "--yes", "--reason", "why", "--command-id", "m-1", *arguments], settings)
    message = await taken(broker)
    for event in events:
        await publish_event(broker, event)
    return message, await finish(process)


def progress(attempt: int, **counts: Any) -> Event:
    return make_event("m-1", 0, "mass_progress", symbol=None, attempt=attempt, mass=ledger(**counts))


def end(outcome: str, symbol: str | None = None, error: CodeError | None = None, **counts: Any) -> Event:
    return make_event("m-1", 0, outcome, symbol=symbol, error=error, mass=ledger(**counts))


async def test_the_command_is_what_the_contract_asks_for(broker: Broker) -> None:
    async with declared(broker) as settings:
        arguments = ("--symbol", "BTC.USD", "--side", "Sell", "--customer-user", "desk 1", "--deadline", "20s")
        message, ended = await answered(broker, settings, arguments, end("mass_canceled", "BTC.USD"))
        assert (ended.status, ended.err) == (0, "")
        body = json.loads(message.body)
        assert body["type"] == "OrderMassCancelRequest"
        [item] = body["data"]
        assert len(item.pop("ClOrdID")) == 36
        assert item == {
            "MassCancelRequestType": "Security", "Symbol": "BTC.USD", "Side": "Sell", "CustomerUser": "desk 1",
        }  # fmt: skip
        assert (message.message_id, message.correlation_id) == ("m-1", "m-1")
        assert message.user_id == urlsplit(broker.url).username
        assert message.delivery_mode == 2
        assert message.content_type == "application/json"
        assert message.headers["reason"] == "why"
        left_s = parse_utc(str(message.headers["deadline"])) / 1e6 - time.time()
        assert 5 < left_s <= 20
        assert message.timestamp is not None
        assert abs(message.timestamp.timestamp() - time.time()) < 60


async def test_verified_flat_is_exit_status_0(broker: Broker) -> None:
    async with declared(broker) as settings:
        flat = end("mass_canceled", matched=2, canceled=2)
        foreign = make_event("m-2", 0, "mass_incomplete", symbol=None, mass=ledger(matched=9))
        first = progress(1, matched=2, unsent=2, remaining=["o-1", "o-2"])
        message, ended = await answered(broker, settings, ["--all"], first, first, foreign, flat)
        assert (ended.status, ended.err) == (0, "")
        assert json.loads(message.body)["data"][0]["MassCancelRequestType"] == "AllOrders"
        assert "deadline" not in message.headers
        lines = ended.out.splitlines()
        assert lines[0] == "mass cancel m-1 is in the kill lane"
        assert lines[1] == "matched 2: 2 not sent; 1 sweep, 0.0 s; 2 remaining"
        assert lines[-1] == (
            "VERIFIED FLAT (matched 2: 2 canceled; 1 sweep, 0.0 s). Covered: every open order that the worker's API "
            "key sees, submitted before the deadline."
        )
        assert "matched 9" not in ended.out


async def test_nothing_matched_is_said_and_exit_status_0(broker: Broker) -> None:
    async with declared(broker) as settings:
        _, ended = await answered(broker, settings, ["--all"], end("mass_canceled"))
        assert ended.status == 0
        assert ended.out.splitlines()[-1].startswith("NOTHING MATCHED (matched 0; ")


async def test_survivors_are_listed_with_their_reasons(broker: Broker) -> None:
    async with declared(broker) as settings:
        rejected = make_event(
            "m-1", 1, "cancel_rejected", order_id="o-1", of_sweep=True, order_live=True,
            error=CodeError(2, None, "market is closed"),
        )  # fmt: skip
        doubtful = make_event("m-1", 2, "unresolved", order_id="o-2", of_sweep=True)
        error = CodeError("survivors", None, "3 orders are still open")
        incomplete = end(
            "mass_incomplete", error=error, matched=4, canceled=1, rejected=1, unknown=2,
            remaining=["o-1", "o-2", "o-3"],
        )  # fmt: skip
        _, ended = await answered(broker, settings, ["--all"], rejected, doubtful, incomplete)
        assert (ended.status, ended.err) == (1, "")
        *_, one, two, three, last = ended.out.splitlines()
        assert one.split() == ["o-1", "cancel_rejected", "yes", "market", "is", "closed"]
        assert two.split() == ["o-2", "unresolved", "not", "known"]
        assert three.split() == ["o-3", "not", "known", "not", "known"]
        assert last.startswith("NOT FLAT (matched 4: 1 canceled, 1 rejected, 2 unknown; ")
        assert "mass_incomplete: 3 orders are still open." in last


async def test_flat_with_survivors_is_not_flat(broker: Broker) -> None:
    async with declared(broker) as settings:
        odd = end("mass_canceled", matched=1, unknown=1, remaining=["o-1"])
        _, ended = await answered(broker, settings, ["--all"], odd)
        assert ended.status == 1
        assert ended.out.splitlines()[-1].startswith("NOT FLAT")


async def test_one_that_is_refused_is_exit_status_1(broker: Broker) -> None:
    async with declared(broker) as settings:
        error = InputError("user_id", "mass_cancel_users", "user_id 'me' is not in authorization.mass_cancel_users")
        refused = make_event("m-1", None, "unauthorized", symbol=None, error=error)
        _, ended = await answered(broker, settings, ["--symbol", "A"], refused)
        assert (ended.status, ended.err) == (1, "")
        assert "NOT FLAT: unauthorized: user_id 'me' is not in authorization.mass_cancel_users." in ended.out


async def test_json_is_one_event_a_line_as_published(broker: Broker) -> None:
    async with declared(broker) as settings:
        events = [progress(1, matched=1), progress(1, matched=1), progress(2, matched=2), end("mass_canceled")]
        _, ended = await answered(broker, settings, ["--all", "--json"], *events)
        assert (ended.status, ended.err) == (0, "")
        found = [json.loads(line) for line in ended.out.splitlines()]
        assert [(event["outcome"], event["mass"]["matched"]) for event in found] == [
            ("mass_progress", 1), ("mass_progress", 2), ("mass_canceled", 0),
        ]  # fmt: skip


async def test_without_a_final_nothing_is_claimed(broker: Broker) -> None:
    async with declared(broker) as settings:
        arguments = ["--all", "--yes", "--reason", "why", "--wait", "0.3", "--command-id", "m-1"]
        ended = await cli("kill", *arguments, settings=settings)
        assert ended.status == 1
        first, second = ended.err.splitlines()
        assert first == "cancel-worker: no final event within 0.3 s: mass cancel m-1 may still be carried out"
        assert second.endswith(f"no worker takes commands from {broker.name('cancel.kill')} now; 1 wait in it")
        assert ended.out.splitlines()[-1].startswith("NOT VERIFIED: no final event came.")


async def test_ctrl_c_says_that_it_stays_in_force(broker: Broker) -> None:
    async with declared(broker) as settings:
        process = await start(["kill", "--all", "--yes", "--reason", "why", "--command-id", "m-1"], settings)
        assert process.stdout is not None
        async with asyncio.timeout(20 * SECOND):
            assert b"mass cancel m-1 is in the kill lane" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        ended = await finish(process)
        assert ended.status == 1
        assert "cancel-worker: mass cancel m-1 was published and stays in force until its deadline\n" in ended.err


async def test_where_nobody_can_be_asked_nothing_is_published(broker: Broker) -> None:
    async with declared(broker) as settings:
        ended = await cli("kill", "--all", "--reason", "why", settings=settings, given=b"y\n")
        assert ended == Ended(2, "", "cancel-worker: nobody can be asked here: give --yes if you mean it\n")
        assert await broker.depth(broker.name("cancel.kill")) == 0


async def on_terminal(
    settings: dict[str, str], arguments: Sequence[str], answer: bytes, stdout: BinaryIO | None = None
) -> Terminal:
    """Standard output may go elsewhere, into a file."""
    leader, follower = pty.openpty()
    environment = clean_environment(settings) | {"TERM": "xterm", "COLUMNS": "160"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker",
        *arguments,
        env=environment,
        stdin=follower,
        stdout=follower if stdout is None else stdout,
        stderr=follower,
    )
    os.close(follower)
    return Terminal(process, leader, answer)


class Terminal:
    """A command on a terminal, and what it shows there."""

    def __init__(self, process: asyncio.subprocess.Process, leader: int, answer: bytes) -> None:
        self.process = process
        self.shown = b""
        self._leader = leader
        self._answer = answer
        asyncio.get_running_loop().add_reader(leader, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._leader, 65536)
        except OSError:  # the other end is closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._leader)
        self.shown += data
        if b"[y/N]:" in self.shown and self._answer:
            os.write(self._leader, self._answer)
            self._answer = b""

    async def ended(self) -> int:
        try:
            async with asyncio.timeout(30 * SECOND):
                return await self.process.wait()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            asyncio.get_running_loop().remove_reader(self._leader)
            os.close(self._leader)


async def test_on_a_terminal_it_asks_first(broker: Broker) -> None:
    async with declared(broker) as settings:
        terminal = await on_terminal(settings, ["kill", "--all", "--reason", "why"], b"n\n")
        assert await terminal.ended() == 1
        assert b"Cancel every open order that the worker's API key sees? [y/N]:" in terminal.shown
        assert b"nothing was published" in terminal.shown
        assert await broker.depth(broker.name("cancel.kill")) == 0


async def shown_before(settings: dict[str, str], *arguments: str) -> str:
    """What ``kill`` shows before it asks; the answer is no."""
    terminal = await on_terminal(settings, ["kill", *arguments, "--reason", "why"], b"n\n")
    assert await terminal.ended() == 1
    assert b"nothing was published" in terminal.shown
    return terminal.shown.decode()


async def test_what_is_open_is_shown_before_it_asks(broker: Broker) -> None:
    async with Simulator(Script(streams=Streams(page_size=7))) as venue, declared(broker) as settings:
        for n in range(30):
            venue.place(symbol="ETH-USD" if n % 3 else "BTC-USD", side="Sell" if n % 2 else "Buy")
        venue.happen(venue.place(), "Expired")
        shown = await shown_before(settings | venue_settings(venue), "--symbol", "ETH-USD")
        assert [line.split() for line in shown.splitlines() if line.strip().startswith("ETH-USD")] == [
            ["ETH-USD", "Sell", "10"], ["ETH-USD", "Buy", "10"],
        ]  # fmt: skip
        assert "open in this scope now, by the venue's list: 20" in shown
        assert "BTC-USD" not in shown
        assert not venue.sessions, "its session is closed again"
        assert {frame.type for frame in venue.received} == {"subscribe", "page"}


async def test_with_json_what_is_open_is_shown_beside_the_events(broker: Broker, tmp_path: Path) -> None:
    lines = tmp_path / "events.jsonl"
    async with Simulator() as venue, declared(broker) as settings:
        venue.place()
        arguments = ["kill", "--all", "--json", "--command-id", "m-1"]
        with lines.open("wb") as out:
            terminal = await on_terminal(settings | venue_settings(venue), arguments, b"y\n", out)
            await taken(broker)
            await publish_event(broker, end("mass_canceled"))
            assert await terminal.ended() == 0
    assert b"open in this scope now, by the venue's list: 1" in terminal.shown
    assert [json.loads(line)["outcome"] for line in lines.read_bytes().splitlines()] == ["mass_canceled"]


async def test_a_deadline_is_checked_before_anything_is_shown_or_asked(broker: Broker) -> None:
    async with Simulator() as venue, declared(broker) as settings:
        arguments = ["kill", "--all", "--deadline", "soon"]
        terminal = await on_terminal(settings | venue_settings(venue), arguments, b"y\n")
        assert await terminal.ended() == 2
        assert terminal.shown.startswith(b"cancel-worker: --deadline must be a time with a zone")
        assert not venue.received


async def test_a_duration_counts_from_the_answer(broker: Broker) -> None:
    """Who reads the list for long has not lost the time of the mass cancel."""
    async with Simulator(Script(streams=Streams(snapshot_delay=4.0))) as venue, declared(broker) as settings:
        arguments = ["kill", "--all", "--deadline", "30s", "--wait", "0.2"]
        terminal = await on_terminal(settings | venue_settings(venue), arguments, b"y\n")
        message = await taken(broker)
        assert await terminal.ended() == 1
        assert message.timestamp is not None
        left_s = parse_utc(str(message.headers["deadline"])) / 1e6 - message.timestamp.timestamp()
        assert left_s > 27.5


async def test_that_the_list_can_not_be_had_is_said_and_it_asks_all_the_same(broker: Broker) -> None:
    async with Simulator(Script(streams=Streams(snapshot="never"))) as venue, declared(broker) as settings:
        venue.place()
        silent = await shown_before(settings | venue_settings(venue), "--all")
        assert "open in this scope: at least 0; the list is not whole: the venue's list did not end" in silent
        keyless = await shown_before(settings | {"CANCEL_WORKER__VENUE__URL": venue.url}, "--all")
        assert "the list is not whole: cannot read the API credentials: venue.api_key" in keyless
    gone = await shown_before(settings | venue_settings(venue), "--all")
    assert "the list is not whole: TCP: 127.0.0.1:" in gone


async def test_on_a_terminal_it_shows_a_bar(broker: Broker) -> None:
    async with declared(broker) as settings:
        arguments = ["kill", "--symbol", "A", "--reason", "why", "--command-id", "m-1"]
        terminal = await on_terminal(settings, arguments, b"y\n")
        await taken(broker)
        await publish_event(
            broker, make_event("m-1", 0, "mass_progress", symbol="A", mass=ledger(matched=7, canceled=3))
        )
        await eventually(lambda: b"3/7" in terminal.shown, 20 * SECOND)
        await publish_event(broker, end("mass_canceled", "A", matched=7, canceled=7))
        assert await terminal.ended() == 0
        assert b"VERIFIED FLAT" in terminal.shown


async def test_a_topology_that_is_not_there_is_exit_status_2(broker: Broker) -> None:
    settings = broker_settings(broker)
    ended = await cli("kill", "--all", "--yes", "--reason", "why", settings=settings)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert f"exchange {broker.name('cancel.results')} is missing" in ended.err


WRONG = {
    "no scope": ["--reason", "x", "--yes"],
    "two scopes": ["--all", "--symbol", "A", "--reason", "x", "--yes"],
    "a side that is none": ["--all", "--side", "buy", "--reason", "x", "--yes"],
    "a symbol with a blank": ["--symbol", "A B", "--reason", "x", "--yes"],
    "a deadline that has passed": ["--all", "--reason", "x", "--yes", "--deadline", "2020-01-01T00:00:00Z"],
    "a command id of nothing": ["--all", "--reason", "x", "--yes", "--command-id", ""],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_a_usage_error(arguments: list[str], here: Callable[..., Ended]) -> None:
    status, out, err = here("kill", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("cancel-worker: ")


# -- with a worker and a venue


async def test_a_worker_flattens_and_the_venue_agrees(broker: Broker) -> None:
    async with Simulator() as venue:
        orders = [venue.place() for _ in range(30)]
        async with working(broker, venue) as settings:
            ended = await cli("kill", "--all", "--yes", "--reason", "drill", settings=settings)
            again = await cli("kill", "--all", "--yes", "--json", settings=settings)
            audited = await cli("audit", "verify", settings=settings)
        assert (ended.status, ended.err) == (0, ""), ended.out
        assert json.loads(again.out.splitlines()[-1])["reason"] is None, "in a hurry nobody has to say why"
        assert ended.out.splitlines()[-1].startswith("VERIFIED FLAT (matched 30: 30 canceled; ")
        assert {venue.truth()[order.order_id].status for order in orders} == {"Canceled"}
        final = json.loads(again.out.splitlines()[-1])
        assert (again.status, final["outcome"], final["mass"]["matched"]) == (0, "mass_canceled", 0)
        assert (audited.status, audited.err) == (0, ""), audited.out
        assert "2 of them mass cancels; 30 finals" in audited.out


async def test_an_order_that_can_not_be_canceled_is_named(broker: Broker) -> None:
    async with Simulator() as venue:
        venue.place()
        stuck = venue.place(behaviour=Behaviour(play="reject", reason=2, text="market is closed"))
        async with working(broker, venue) as settings:
            arguments = ("--symbol", "BTC-USD", "--yes", "--reason", "drill", "--deadline", "3s")
            ended = await cli("kill", *arguments, settings=settings)
            audited = await cli("audit", "verify", settings=settings)
        assert (ended.status, ended.err) == (1, ""), ended.out
        survivor, last = ended.out.splitlines()[-2:]
        assert survivor.split()[:3] == [stuck.order_id, "cancel_rejected", "yes"]
        assert "market is closed" in survivor
        assert last.startswith("NOT FLAT (matched 2: 1 canceled, 1 rejected; ")
        assert (audited.status, audited.err) == (0, ""), audited.out
