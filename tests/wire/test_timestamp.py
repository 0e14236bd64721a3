"""Times in, times out: one form is written, ISO-8601 with a zone is read (contract section 2, `TransactTime`)."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.wire.timestamp import MAX_US, MIN_US, format_utc, from_datetime, normalise_utc, parse_utc

US = st.integers(MIN_US, MAX_US)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

READ = {
    "2021-09-15T04:09:42.238000Z": "2021-09-15T04:09:42.238000Z",
    "2021-09-15T04:09:42Z": "2021-09-15T04:09:42.000000Z",
    "2021-09-15T04:09Z": "2021-09-15T04:09:00.000000Z",
    "2021-09-15t04:09:42.5z": "2021-09-15T04:09:42.500000Z",
    "2021-09-15T04:09:42,5Z": "2021-09-15T04:09:42.500000Z",
    "2021-09-15T04:09:42.123456789Z": "2021-09-15T04:09:42.123456Z",
    "2021-09-15T04:09:42.999999999Z": "2021-09-15T04:09:42.999999Z",
    "2021-09-15T04:09:42.238000+00:00": "2021-09-15T04:09:42.238000Z",
    "2021-09-15T04:09:42-00:00": "2021-09-15T04:09:42.000000Z",
    "2021-09-15T06:09:42+02:00": "2021-09-15T04:09:42.000000Z",
    "2021-09-15T06:09:42+0200": "2021-09-15T04:09:42.000000Z",
    "2021-09-15T06:09:42+02": "2021-09-15T04:09:42.000000Z",
    "2021-09-14T22:39:42-05:30": "2021-09-15T04:09:42.000000Z",
    "2021-12-31T23:30:00-01:00": "2022-01-01T00:30:00.000000Z",
    "20210915T040942.238Z": "2021-09-15T04:09:42.238000Z",
    "20210915T060942+0200": "2021-09-15T04:09:42.000000Z",
    "2016-12-31T23:59:60Z": "2017-01-01T00:00:00.000000Z",
    "2016-12-31T23:59:60.250000Z": "2017-01-01T00:00:00.250000Z",
    "2017-01-01T08:59:60+09:00": "2017-01-01T00:00:00.000000Z",
    "2024-02-29T00:00:00Z": "2024-02-29T00:00:00.000000Z",
    "0001-01-01T00:00:00.000000Z": "0001-01-01T00:00:00.000000Z",
    "9999-12-31T23:59:59.999999Z": "9999-12-31T23:59:59.999999Z",
    "1969-12-31T23:59:59.999999Z": "1969-12-31T23:59:59.999999Z",
}
REFUSED = [
    "",
    "now",
    "2021-09-15T04:09:42",
    "2021-09-15T04:09:42.238000",
    "2021-09-15 04:09:42Z",
    "2021-09-15T04:09:42 Z",
    " 2021-09-15T04:09:42Z",
    "2021-09-15T04:09:42Z\n",
    "2021-09-15T04:09:42.000000Z\n",
    "2021-09-15",
    "2021-09-15Z",
    "2021-W37-3T04:09:42Z",
    "2021-258T04:09:42Z",
    "2021-09-15T040942Z",
    "20210915T04:09:42Z",
    "2021-9-15T04:09:42Z",
    "21-09-15T04:09:42Z",
    "12021-09-15T04:09:42Z",
    "2021-02-29T00:00:00Z",
    "2021-02-29T00:00:00.000000Z",
    "2021-13-01T00:00:00Z",
    "2021-00-01T00:00:00Z",
    "2021-09-15T24:00:00Z",
    "2021-09-15T04:60:00Z",
    "2021-09-15T04:09:61Z",
    "2021-09-15T04:09:60Z",
    "2021-09-15T23:59:60+01:00",
    "2021-09-15T04:09:42.Z",
    "2021-09-15T04:09:42.1234567890Z",
    "2021-09-15T04:09:42.12345xZ",
    "2021-09-15T04:09:42.12345²Z",
    "2021-09-15T04:09:42+24:00",
    "2021-09-15T04:09:42+00:60",
    "2021-09-15T04:09:42+1:00",
    "2021-09-15T04:09:42UTC",
    "2021-09-15T04:09:42+00:00Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00",
    "9999-12-31T23:59:60Z",
    "٢٠٢١-09-15T04:09:42Z",
    "２021-09-15T04:09:42.000000Z",
    "1631678982",
    "2021-09-15T04:09:42Z" + "0" * 100_000,
]


@pytest.mark.parametrize("text", READ)
def test_every_form_is_read_and_normalised(text: str) -> None:
    assert normalise_utc(text) == READ[text]
    assert format_utc(parse_utc(text)) == READ[text]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text[:40]))
def test_anything_else_is_refused_without_an_echo(text: str) -> None:
    for read in (parse_utc, normalise_utc):
        with pytest.raises(ValueError) as caught:
            read(text)
        assert len(text) < 4 or text not in str(caught.value)


@given(US)
def test_what_is_written_is_read_back(utc_us: int) -> None:
    text = format_utc(utc_us)
    assert len(text) == 27
    assert parse_utc(text) == utc_us
    assert normalise_utc(text) is text
    assert datetime.fromisoformat(text) == EPOCH + timedelta(microseconds=utc_us)


@given(st.datetimes(timezones=st.timezones()), st.integers(-1439, 1439))
def test_every_zone_reads_as_python_reads_it(moment: datetime, offset_minutes: int) -> None:
    try:
        local = moment.astimezone(timezone(timedelta(minutes=offset_minutes)))
        expected = (local - EPOCH) // timedelta(microseconds=1)
    except OverflowError:
        return
    if MIN_US <= expected <= MAX_US:
        assert parse_utc(local.isoformat()) == expected
        assert from_datetime(local) == expected


@given(st.text(alphabet="0123456789-:.,TtZz+ \n", max_size=45))
def test_text_is_read_or_refused_with_value_error(text: str) -> None:
    try:
        utc_us = parse_utc(text)
    except ValueError:
        return
    assert MIN_US <= utc_us <= MAX_US


@pytest.mark.parametrize("utc_us", [MIN_US - 1, MAX_US + 1, 10**30, -(10**30)])
def test_no_time_outside_the_calendar_is_written(utc_us: int) -> None:
    with pytest.raises(ValueError, match="years"):
        format_utc(utc_us)


def test_naive_datetime_is_utc() -> None:
    assert from_datetime(datetime(2021, 9, 15, 4, 9, 42)) == parse_utc("2021-09-15T04:09:42Z")  # noqa: DTZ001 - the case


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(hours=1))),
    ],
)
def test_datetime_that_leads_out_of_the_calendar_is_refused(moment: datetime) -> None:
    with pytest.raises(ValueError, match="years"):
        from_datetime(moment)
