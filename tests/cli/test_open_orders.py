"""The list that ``kill`` shows before it asks: what of it may be missing is said (protocol 3.4 and section 8)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.venue.support import HELLO, KEY, SECRET, Peer, RawVenue, settings, text
from worker.cli.open_orders import Open, open_orders
from worker.config import Config, Secret
from worker.core.snapshot import Scope

EVERYTHING = Scope(None, None, None)
ONE = {"OrderID": "o-1", "Symbol": "BTC-USD", "Side": "Buy", "OrdStatus": "New"}
TWO = {**ONE, "OrderID": "o-2"}
NAMELESS = {"Symbol": "BTC-USD", "Side": "Buy", "OrdStatus": "New"}


async def listed(*frames: dict[str, Any]) -> Open:
    """What is made of these frames of the venue's list."""

    async def behave(peer: Peer) -> None:
        await peer.accept()
        peer.write(text(HELLO))
        asked = json.loads((await peer.read_frame())[1])
        for frame in frames:
            peer.write(text(json.dumps({"reqid": asked["reqid"], "type": "Order", "initial": True, **frame}).encode()))
            if "next" in frame:
                await peer.read_frame()
        await peer.reader.read()

    async with RawVenue(behave).listening() as venue:
        reached = msgspec.structs.replace(settings(venue.port), api_key=Secret(KEY), api_secret=Secret(SECRET))
        return await open_orders(Config(venue=reached), EVERYTHING)


WHOLE: list[list[dict[str, Any]]] = [
    [{"data": [ONE, TWO]}],
    [{"data": [ONE, TWO], "total_count": 2}],
    [{"data": [ONE], "total_count": 2, "seqNum": 1, "next": "a"}, {"data": [TWO], "total_count": 2, "seqNum": 2}],
]


@pytest.mark.parametrize("frames", WHOLE)
async def test_a_whole_list_lacks_nothing(frames: list[dict[str, Any]]) -> None:
    found = await listed(*frames)
    assert (found.lacks, found.by_symbol_and_side) == (None, [("BTC-USD", "Buy", 2)])


@pytest.mark.parametrize(
    ("frames", "shown", "lacks"),
    [
        ([{"data": [ONE], "total_count": 3}], 1, "the venue counts 3 orders and listed 1"),
        ([{"data": [ONE, NAMELESS, NAMELESS, {**NAMELESS, "OrdStatus": "Filled"}]}], 1, "2 records without OrderID"),
        (
            [{"data": [ONE], "seqNum": 1, "next": "a"}, {"data": [TWO], "seqNum": 3}],
            2,
            "a frame of the list is missing",
        ),
        (
            [
                {"data": [ONE], "total_count": 2, "next": "a"},
                {"data": [TWO], "initial": False},
                {"data": [], "total_count": 2},
            ],
            2,
            "the venue counts 2 orders and listed 1",
        ),
        ([{"data": [ONE], "seqNum": 2}], 1, "a frame of the list is missing"),
        ([{"type": "error", "error": {"code": 7, "msg": "no"}}], 0, "the venue refused the list: code 7"),
        ([{"type": "error"}], 0, "the venue refused the list"),
    ],
    ids=[
        "counted",
        "nameless",
        "a gap",
        "counted without what came live",
        "no beginning",
        "refused",
        "refused without a word",
    ],
)
async def test_what_a_list_lacks_is_said(frames: list[dict[str, Any]], shown: int, lacks: str) -> None:
    found = await listed(*frames)
    assert (len(found), found.lacks) == (shown, lacks)
