"""Scripts from TOML, the example file, the background flow, the run function."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import msgspec
import pytest

from tests.simulator.client import KEY, SECRET, item, ready
from tests.simulator.conftest import Open
from worker.errors import ConfigError
from worker.simulator import (
    Behaviour,
    Cancels,
    Flow,
    Login,
    Order,
    Placed,
    Script,
    ScriptError,
    Simulator,
    Streams,
    load_script,
    read_script,
    serve,
)
from worker.simulator.plays import PLAY_NAMES, parse_step, steps_of

EXAMPLE = Path(__file__).parents[2] / "config" / "simulator.toml"


@pytest.mark.parametrize(
    ("text", "key", "rule"),
    [
        ("surprise = 1", "surprise", "unknown key"),
        ("[login]\nkeyy = 'x'", "login.keyy", "unknown key"),
        ("[streams]\npage_size = 0", "streams.page_size", ">= 1"),
        ("seed = 'x'", "seed", "`int`"),
        ("[streams]\nreport_fanout = 'some'", "streams.report_fanout", "'some'"),
        ("[behaviour]\nplay = 'nonsense'", "behaviour", "play must be one of cancel,"),
        ("[behaviour]\nsteps = ['Trade much']", "behaviour", "not a number"),
        ("[[mix]]\nbehaviour = {}\nweight = 0", "mix[0].weight", "> 0"),
        ("[[rules]]\nsymbol = 'x'", "rules[0]", "`behaviour`"),
        ("[[connect]]\nstatus = 700", "connect[0].status", "<= 599"),
        ("= 3", "", "is not TOML"),
    ],
)
def test_a_fault_names_file_key_and_rule(tmp_path: Path, text: str, key: str, rule: str) -> None:
    file = tmp_path / "script.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ScriptError) as found:
        load_script(file)
    assert (found.value.file, found.value.key) == (str(file), key)
    assert rule in found.value.rule
    assert str(file) in str(found.value)
    assert isinstance(found.value, ConfigError)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match=r"absent\.toml: cannot be read"):
        load_script(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(ScriptError, match="UTF-8"):
        load_script(tmp_path / "latin.toml")


def test_an_empty_script_is_the_default() -> None:
    assert read_script("") == Script()


def test_the_example_shows_every_key_with_its_default() -> None:
    assert load_script(EXAMPLE).mix
    table, text = tomllib.loads(EXAMPLE.read_text(encoding="utf-8")), EXAMPLE.read_text(encoding="utf-8")
    sections = {"login": Login(), "streams": Streams(), "cancels": Cancels(), "flow": Flow(), "behaviour": Behaviour()}
    for section, default in sections.items():
        built_in = msgspec.json.decode(msgspec.json.encode(default))
        shown = table[section]
        assert set(shown) <= set(built_in)
        for key, value in built_in.items():
            if key in shown and shown[key] != value:
                assert "built-in default" in next(
                    line for line in text.splitlines() if line.startswith(f"{key} =") and "built-in" in line
                )
            elif key not in shown:
                assert f"# {key} = " in text or key in ("fill_id", "unknown_id"), f"{section}.{key}"
    for name in msgspec.structs.fields(Script):
        assert name.name in table or f"[[{name.name}]]" in text


@pytest.mark.parametrize(
    "text", ["", "Trade 0", "Trade 1.5", "Canceled 3", "Trade 0.1 0.2", "Fill @x", "Fill @-1", "7"]
)
def test_a_step_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="step"):
        parse_step(text)


@pytest.mark.parametrize("play", PLAY_NAMES)
def test_every_play_has_its_steps(play: str) -> None:
    assert bool(steps_of(Behaviour(play=play))) is (play not in ("ignore", "error"))


def test_a_step_may_wait() -> None:
    assert parse_step("CancelRejected 3 @0.25") == ("CancelRejected", 0.4, 3, 0.25)


async def test_scripted_orders_stand_in_the_book_or_appear(open_venue: Open) -> None:
    venue = await open_venue(orders=(
        Placed(order_id="now", symbol="ETH-USD", age=60.0), Placed(order_id="many", count=3),
        Placed(order_id="late", after=0.05),
    ))  # fmt: skip
    assert set(venue.truth()) == {"now", "many-1", "many-2", "many-3"}
    assert venue.order("now").symbol == "ETH-USD"
    await venue.until(lambda: "late" in venue.truth())


async def test_orders_flow_in_the_background_up_to_a_bound(open_venue: Open) -> None:
    venue = await open_venue(flow=Flow(order_rate=500.0, foreign_rate=200.0, max_open=15, symbols=("A-B",)))
    async with ready(venue) as client:
        await client.following()
        await client.reports(1)

        def of(user: str) -> list[Order]:
            return [order for order in venue.book.orders.values() if order.customer_user == f"{user}@example.com"]

        await venue.until(lambda: len(of("trader")) == 15 and len(of("another")) > 15)
        assert len([order for order in of("another") if not order.closed]) == 15
        await venue.until(lambda: len(of("another")) > 30)
        assert len(of("trader")) == 15
        assert {order.symbol for order in of("trader")} == {"A-B"}


async def test_the_book_is_bounded(open_venue: Open) -> None:
    venue = await open_venue(max_closed=5, max_reports=20, max_ledger=10, cancels=Cancels(auto_orders=True))
    async with ready(venue) as client:
        await client.following()
        for number in range(30):
            await client.cancel(item(f"y{number}", f"o{number}"))
        await client.reports(60)
    assert list(venue.truth()) == [f"o{number}" for number in range(25, 30)]
    assert len(venue.book.history) <= 20
    assert sum(len(entries) for entries in venue.book.history_of.values()) == len(venue.book.history)
    assert len(venue.cancels) == 10
    assert venue.ledger.counts["cancels_processed"] == 30


async def test_ids_in_use_cannot_be_placed_again(open_venue: Open) -> None:
    venue = await open_venue()
    venue.place(order_id="o", cl_ord_id="x")
    with pytest.raises(ValueError, match="in use"):
        venue.place(order_id="o")
    with pytest.raises(ValueError, match="in use"):
        venue.place(cl_ord_id="x")


async def test_the_clock_is_the_tests_own() -> None:
    moment = 1_700_000_000_000_000
    async with Simulator(Script(clock_offset=1.0, login=Login(clock_skew=0.0)), clock=lambda: moment) as venue:
        order = venue.place()
        assert order.submitted_us == moment + 1_000_000
        assert venue.book.history[0].published_us == moment + 1_000_000
        venue.place()
        assert venue.book.history[1].published_us == moment + 1_000_001  # publication times never repeat


async def test_a_fault_in_a_callback_is_told_when_the_venue_closes() -> None:
    def faulty(_: object) -> Behaviour:
        raise LookupError("the test's own mistake")

    async def run() -> None:
        async with Simulator(key=KEY, secret=SECRET, on_cancel=faulty) as venue:
            order = venue.place()
            async with ready(venue) as client:
                await client.cancel(item("y", order.order_id))
                await client.connection.wait_closed()
                assert client.connection.close_code == 1011

    with pytest.raises(ExceptionGroup, match="the simulator failed"):
        await run()


async def test_serve_runs_until_told_to_stop() -> None:
    stop, up = asyncio.Event(), asyncio.Queue[Simulator]()
    task = asyncio.create_task(serve("127.0.0.1", 0, Script(), ready=up.put_nowait, stop=stop))
    venue = await asyncio.wait_for(up.get(), 2)
    assert venue.url == f"ws://127.0.0.1:{venue.port}/ws/v1"
    stop.set()
    await asyncio.wait_for(task, 2)
