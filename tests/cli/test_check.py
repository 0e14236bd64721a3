"""``cancel-worker check``: a line each, and an exit status to build on."""

from __future__ import annotations

from tests.cli.conftest import broker_settings, cli, venue_settings
from tests.cli.test_topology import delete_all
from tests.support.broker import Broker
from worker.simulator import Connect, Simulator


async def test_all_is_well(broker: Broker) -> None:
    async with Simulator() as venue:
        settings = broker_settings(broker) | venue_settings(venue)
        await cli("topology", "--declare", settings=settings)
        ended = await cli("check", settings=settings)
        await delete_all(broker)
        assert (ended.status, ended.err) == (0, "")
        assert [line.split()[:2] for line in ended.out.splitlines()] == [
            ["configuration", "ok"],
            ["broker", "ok:"],
            ["topology", "ok:"],
            ["venue", "ok:"],
        ]
        assert venue.ledger.counts["upgrades"] == 1
        assert not venue.sessions
        assert settings["CANCEL_WORKER__VENUE__API_SECRET"] not in ended.out


async def test_what_is_missing_is_named_and_the_rest_checked_still(broker: Broker) -> None:
    async with Simulator() as venue:
        ended = await cli("check", settings=broker_settings(broker) | venue_settings(venue))
    assert (ended.status, ended.err) == (1, "")
    assert f"topology       FAILED: exchange {broker.name('cancel.commands')} is missing" in ended.out
    assert "venue          ok: " in ended.out


async def test_no_broker_and_a_key_that_is_refused() -> None:
    async with Simulator() as venue:
        settings = venue_settings(venue) | {
            "CANCEL_WORKER__BROKER__URL": "amqp://user:hunter2@127.0.0.1:1/",
            "CANCEL_WORKER__VENUE__API_SECRET": "another-secret-0",
        }
        ended = await cli("check", settings=settings)
    assert (ended.status, ended.err) == (1, "")
    lines = ended.out.splitlines()
    assert lines[1].startswith("broker         FAILED: 127.0.0.1:1: ")
    assert lines[2] == "topology       not checked"
    assert lines[3].startswith("venue          FAILED: upgrade refused with HTTP 401")
    assert "hunter2" not in ended.out
    assert "another-secret-0" not in ended.out


async def test_a_venue_that_never_says_hello_is_waited_for_no_longer_than_configured() -> None:
    cases = ((Connect(hello="never"), "no hello within 1.5 s"), (Connect(hello="wrong"), "the first frame is "))
    for rule, told in cases:
        async with Simulator() as venue:
            venue.next_connect(rule)
            settings = venue_settings(venue) | {
                "CANCEL_WORKER__BROKER__URL": "amqp://127.0.0.1:1/",
                "CANCEL_WORKER__VENUE__CONNECT_TIMEOUT": "1",
                "CANCEL_WORKER__VENUE__HELLO_TIMEOUT": "0.5",
            }
            ended = await cli("check", settings=settings)
        assert ended.status == 1
        assert f"venue          FAILED: {told}" in ended.out


async def test_a_venue_that_accepts_and_never_answers() -> None:
    async with Simulator() as venue:
        venue.refuse(-1, -1)
        settings = venue_settings(venue) | {
            "CANCEL_WORKER__BROKER__URL": "amqp://127.0.0.1:1/",
            "CANCEL_WORKER__VENUE__CONNECT_TIMEOUT": "0.5",
        }
        ended = await cli("check", settings=settings)
    assert ended.status == 1
    assert "venue          FAILED: upgrade: no answer from 127.0.0.1" in ended.out


async def test_a_configuration_that_cannot_be_used_is_exit_status_2() -> None:
    ended = await cli("check", settings={"CANCEL_WORKER__VENUE__API_KEY": "key"})
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "cancel-worker: venue.api_secret must be set, or venue.api_secret_file\n"
