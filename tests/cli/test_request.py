"""What ``cancel`` builds is what the worker will read, or it is refused before anything is published."""

from __future__ import annotations

import json

import pytest

from worker.cli.request import body_of_options, deadline_of, properties, request
from worker.errors import UsageError
from worker.wire.timestamp import format_utc

NOW_US = 1_700_000_000_000_000
MOST = 1024 * 1024


def test_each_id_of_either_kind_is_a_cancel_of_its_own() -> None:
    body = body_of_options("BTC-USD", ["o1", "o2"], ["c1"], ["x", "y", "z"])
    assert json.loads(body) == {
        "type": "OrderCancelRequest",
        "data": [
            {"Symbol": "BTC-USD", "OrderID": "o1", "ClOrdID": "x"},
            {"Symbol": "BTC-USD", "OrderID": "o2", "ClOrdID": "y"},
            {"Symbol": "BTC-USD", "OrigClOrdID": "c1", "ClOrdID": "z"},
        ],
    }
    asked = request("id", body, MOST)
    assert [item.cl_ord_id for item in asked.items] == ["x", "y", "z"]
    assert asked.symbols == {"BTC-USD"}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b'{"type": "Ping", "data": []}', "type"),
        (b'{"type": "OrderCancelRequest"}', "data"),
        (b'{"type": "OrderCancelRequest", "data": [{"OrderID": "1"}]}', "cancel 0: Symbol"),
        (b'{"type": "OrderCancelRequest", "data": [{"Symbol": "A", "OrderID": "1"}, {"Symbol": "A"}]}', "cancel 1: "),
        (b'{"type": "OrderMassCancelRequest", "data": [{"MassCancelRequestType": "AllOrders"}]}', "OrderCancelRequest"),
        (b" " * (MOST + 1), "at most 1048576 bytes"),
    ],
)
def test_what_the_worker_would_call_invalid_is_a_usage_error(body: bytes, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        request("id", body, MOST)


@pytest.mark.parametrize(
    ("text", "after_us"),
    [("30s", 30_000_000), ("30", 30_000_000), ("500ms", 500_000), ("1.5m", 90_000_000), ("2h", 7_200_000_000)],
)
def test_a_deadline_may_be_a_duration_from_now(text: str, after_us: int) -> None:
    assert deadline_of(text, NOW_US) == format_utc(NOW_US + after_us)


def test_a_deadline_may_be_a_time_with_zone() -> None:
    assert deadline_of("2099-01-01T01:00:00+01:00", NOW_US) == "2099-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    "text", ["", "0s", "-1s", "30 s", "1d", "2020-01-01T00:00:00Z", "2099-01-01T00:00:00", "9" * 30]
)
def test_any_other_deadline_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--deadline"):
        deadline_of(text, NOW_US)


def test_the_message_says_who_asks_why_and_until_when() -> None:
    asked = request("id", body_of_options("A", ["1"], [], []), MOST)
    made = properties(asked, user="risk", reason="desk closed", deadline="2099-01-01T00:00:00.000000Z")
    assert made["message_id"] == made["correlation_id"] == "id"
    assert made["user_id"] == "risk"
    assert made["headers"] == {"reason": "desk closed", "deadline": "2099-01-01T00:00:00.000000Z"}
    assert properties(asked, user=None, reason=None, deadline=None)["headers"] == {}
