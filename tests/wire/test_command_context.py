"""What a command carries besides its cancels (contract section 2, last paragraph), and that no decoration stops it."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.wire.bad_bodies import MAX_BODY, as_json, cancel_request, good_item
from worker.wire.command import CancelCommand, Context, InvalidCommand, Properties, read_command
from worker.wire.properties import read_context
from worker.wire.timestamp import parse_utc

BODY = as_json(cancel_request(good_item(1)))


def context_of(message_id: str | None = "cmd-1", **properties: Any) -> Context:
    verdict = read_command(BODY, Properties(message_id=message_id, **properties), MAX_BODY)
    assert isinstance(verdict, CancelCommand), verdict
    return verdict.context


def header(name: str, value: object) -> Context:
    return context_of(headers={name: value})


def test_everything_is_carried_on() -> None:
    properties = Properties(
        content_type="application/json",
        message_id="cmd-1",
        correlation_id="corr",
        reply_to="amq.gen-1",
        user_id="risk",
        app_id="limits",
        timestamp_s=1_631_678_982,
        headers={
            "reason": "limit breached",
            "deadline": "2021-09-15T06:10:00+02:00",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "tracestate": "a=b",
            "x-death": [{"count": 1}],
            "requeue_of": "dead-1",
            "original_user": "desk",
            "x-delivery-count": 3,
        },
    )
    assert read_context(properties) == (
        Context(
            command_id="cmd-1",
            correlation_id="corr",
            reply_to="amq.gen-1",
            user_id="risk",
            app_id="limits",
            reason="limit breached",
            deadline_us=parse_utc("2021-09-15T04:10:00Z"),
            deadline_text="2021-09-15T06:10:00+02:00",
            traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            tracestate="a=b",
            enqueued_us=1_631_678_982_000_000,
            has_x_death=True,
            requeue_of="dead-1",
            original_user="desk",
            delivery_count=3,
        ),
        None,
    )


def test_nothing_but_a_message_id() -> None:
    assert context_of() == Context(command_id="cmd-1", correlation_id="cmd-1")


@pytest.mark.parametrize("message_id", ["a", "x" * 255, "with blanks, (any) ASCII~", "é" * 127, "№ 5\u00a0b"])
def test_message_id_is_the_command_id(message_id: str) -> None:
    assert context_of(message_id).command_id == message_id


@pytest.mark.parametrize("message_id", ["x" * 256, "é" * 128, "a\nb", "\x00", "\x7f", "\x85", "\udc80"])
def test_message_id_that_could_not_be_carried_is_invalid(message_id: str) -> None:
    verdict = read_command(BODY, Properties(message_id=message_id), MAX_BODY)
    assert isinstance(verdict, InvalidCommand)
    assert verdict.rejection.field == "message_id"
    assert verdict.context.command_id is None
    assert verdict.context.correlation_id is None


@pytest.mark.parametrize(
    ("deadline", "utc", "text"),
    [
        ("2021-09-15T04:10:00Z", "2021-09-15T04:10:00Z", "2021-09-15T04:10:00Z"),
        ("20210915T061000+0200", "2021-09-15T04:10:00Z", "20210915T061000+0200"),
        (b"2021-09-15T04:10:00Z", "2021-09-15T04:10:00Z", "2021-09-15T04:10:00Z"),
        (datetime(2021, 9, 15, 4, 10, tzinfo=UTC), "2021-09-15T04:10:00Z", "2021-09-15T04:10:00.000000Z"),
        (
            datetime(2021, 9, 15, 6, 10, tzinfo=timezone(timedelta(hours=2))),
            "2021-09-15T04:10:00Z",
            "2021-09-15T04:10:00.000000Z",
        ),
        (1_631_679_000, "2021-09-15T04:10:00Z", "2021-09-15T04:10:00.000000Z"),
        (0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"),
    ],
)
def test_deadline(deadline: object, utc: str, text: str) -> None:
    context = header("deadline", deadline)
    assert (context.deadline_us, context.deadline_text) == (parse_utc(utc), text)


def test_deadline_of_null_is_none() -> None:
    assert header("deadline", None).deadline_us is None


@pytest.mark.parametrize(
    "deadline",
    [
        "",
        "soon",
        "2021-09-15T04:10:00",
        "1631679000",
        -1,
        True,
        1_631_679_000_000,
        10**400,
        1631679000.5,
        float("nan"),
        b"2021-09-15T04:10:00",
        b"\xff\xfe",
        ["2021-09-15T04:10:00Z"],
        {"deadline": 1},
        datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-timedelta(hours=1))),
        object(),
    ],
)
def test_unreadable_deadline_is_invalid_since_what_was_meant_cannot_be_known(deadline: object) -> None:
    verdict = read_command(BODY, Properties(message_id="cmd-1", headers={"deadline": deadline}), MAX_BODY)
    assert isinstance(verdict, InvalidCommand)
    assert verdict.rejection.field == "deadline"
    assert len(verdict.rejection.message) < 200
    assert verdict.context.command_id == "cmd-1"


@pytest.mark.parametrize("timestamp_s", [None, -1, 1_631_678_982_000, 2**63])
def test_timestamp_that_is_no_time_in_seconds_is_none(timestamp_s: int | None) -> None:
    assert context_of(timestamp_s=timestamp_s).enqueued_us is None


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("why", "why"),
        ("r" * 2000, "r" * 1024),
        (b"b\xc3\xa9", "bé"),
        (b"\xff", "\ufffd"),
        ("\udcff!", "\ufffd!"),
        ("", None),
        (5, None),
        (None, None),
        ([1], None),
    ],
)
def test_reason_is_text_of_bounded_length_or_nothing(value: object, kept: str | None) -> None:
    assert header("reason", value).reason == kept


@pytest.mark.parametrize("value", ["", "t" * 1025, "é", "a\r\nb", 5, ["a"], {"a": 1}, None, b"\xff"])
def test_trace_headers_are_whole_or_absent(value: object) -> None:
    assert header("traceparent", value).traceparent is None
    assert header("tracestate", value).tracestate is None


@pytest.mark.parametrize(
    ("value", "kept"), [("id", "id"), (b"id", "id"), (5, "?"), ("", "?"), (True, "?"), (None, None)]
)
def test_requeue_of_is_noticed_whatever_its_value(value: object, kept: str | None) -> None:
    assert header("requeue_of", value).requeue_of == kept


def test_x_death_is_noticed_whatever_its_value() -> None:
    assert header("x-death", "odd").has_x_death
    assert not header("x-death", None).has_x_death


@pytest.mark.parametrize(
    ("value", "count"), [(0, 0), (7, 7), (-1, 0), (True, 0), ("7", 0), (7.0, 0), (2**40, 0), (None, 0), ([], 0)]
)
def test_delivery_count_is_a_count_or_zero(value: object, count: int) -> None:
    assert header("x-delivery-count", value).delivery_count == count


def test_echoed_properties_can_be_sent_again() -> None:
    context = context_of(correlation_id="\udcff" * 255, app_id="é" * 255)
    assert context.correlation_id == "\ufffd" * 85
    assert context.app_id == "é" * 127
    assert context_of(correlation_id="").correlation_id == "cmd-1"


@pytest.mark.parametrize("name", ["", "\udcff", "q" * 256, "é" * 128])
def test_names_of_a_queue_or_a_user_are_exact_or_absent(name: str) -> None:
    context = context_of(reply_to=name, user_id=name)
    assert (context.reply_to, context.user_id) == (None, None)


def test_names_beyond_ascii_are_kept() -> None:
    assert context_of(reply_to="für-immer", user_id="jörg").user_id == "jörg"
