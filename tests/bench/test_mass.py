"""The benchmark of mass cancels ends with an error, and not never, where there is nothing to measure."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from bench.mass import Hello
from tests.support.timing import SECOND
from tests.venue.support import Behaviour, Peer, RawVenue, credentials, settings
from worker.venue.pool import Pool


async def hang_up(peer: Peer) -> None:
    """No answer to the upgrade."""


async def accept_and_hang_up(peer: Peer) -> None:
    """No hello."""
    await peer.accept()


@pytest.mark.parametrize("behave", [hang_up, accept_and_hang_up])
async def test_a_venue_without_a_hello_is_an_error(behave: Behaviour) -> None:
    async with RawVenue(behave).listening() as venue:
        hello = Hello()
        pool = Pool(settings(venue.port), credentials, hello, Random(7))
        running = asyncio.create_task(pool.run())
        async with asyncio.timeout(5 * SECOND):
            with pytest.raises(RuntimeError, match=r"closed|lost|end"):
                await hello.session
            await pool.close()
            await running
