"""The wall clock steps: waits go by the monotonic clock, deadlines by the wall clock (faults 3, I4)."""

from __future__ import annotations

import pytest

from tests.core.driver import Driver
from tests.core.payloads import START_US, item
from worker.wire.timestamp import format_utc

SECOND = 1_000_000
HOUR = 3600 * SECOND
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["an hour on", "an hour back"])


@STEPS
def test_no_wait_ends_sooner_or_later_for_it(step: int) -> None:
    driver = Driver(venue={"report_timeout": 5.0, "doubt_window": 60.0})
    driver.answering = False
    driver.deliver(item())
    driver.advance(4.9)
    driver.utc_us += step
    driver.advance(0.05)
    assert driver.outcomes() == []
    driver.advance(0.1)
    assert driver.outcomes() == ["doubtful"]
    driver.advance(59)
    driver.utc_us -= step
    driver.advance(0.5)
    assert driver.outcomes() == ["doubtful"]
    driver.advance(2)
    assert driver.outcomes() == ["doubtful", "unresolved"]


@STEPS
def test_sessions_stay_up_and_the_rate_stays_what_it_is(step: int) -> None:
    driver = Driver(venue={"rate_limit": 1.0})
    for n in range(4):
        driver.deliver(item(n), id=f"c{n}")
    driver.utc_us += step
    driver.advance(1.5)
    assert len(driver.cancels_sent()) == 2
    assert driver.dropped == []
    driver.advance(10)
    assert len(driver.cancels_sent()) == 4 and driver.dropped == []


@STEPS
def test_a_deadline_is_over_when_the_wall_clock_says_so(step: int) -> None:
    driver = Driver(venue={"rate_limit": 1.0})
    deadline = format_utc(driver.utc_us + 30 * SECOND)
    for n in range(2):
        driver.deliver(item(n), id=f"c{n}", headers={"deadline": deadline})
    assert driver.cancels_sent() == ["y-0"]
    driver.utc_us += step
    driver.advance(2)
    if step > 0:
        final = driver.final("c1")
        assert (final["outcome"], final["sent"], driver.cancels_sent()) == ("deadline_passed", "never", ["y-0"])
    else:
        assert driver.cancels_sent() == ["y-0", "y-1"]


@STEPS
@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("new_session", [True, False])
def test_what_happened_before_it_is_asked_for_after_it(step: int, stamped: bool, new_session: bool) -> None:
    """A question is dated by the venue's clock, which did not step (contract section 6, protocol section 8 rule 3)."""
    driver = Driver(venue={"lookback": 900.0, "overlap": 60.0})
    driver.advance(100)
    enqueued_us = driver.utc_us
    driver.advance(20)
    venue_us = driver.utc_us
    driver.utc_us += step
    if new_session:
        driver.lose(1)
        session = driver.open()
        driver.greet(session, format_utc(venue_us))
        driver.frame(session, data=[], initial=True)
    driver.deliver(item(), redelivered=True, timestamp_s=enqueued_us // SECOND if stamped else None)
    asked = driver.questions()[0]["StartDate"]
    earliest = format_utc(venue_us - 900 * SECOND)
    if stamped and not new_session:
        assert asked == format_utc(enqueued_us - 60 * SECOND)
    else:  # the publisher's stamp cannot be told by a clock that has stepped, or there is none
        assert asked == earliest


@STEPS
def test_a_session_that_comes_after_it_reads_on_from_the_last_report(step: int) -> None:
    driver = Driver(venue={"overlap": 60.0})
    driver.advance(30)
    last = driver.report("New", ClOrdID="somebody", OrderID="elsewhere")["Timestamp"]
    driver.advance(30)
    venue_us = driver.utc_us
    driver.utc_us += step
    driver.lose(1)
    session = driver.open()
    driver.greet(session, format_utc(venue_us))
    since = driver.subscribes(session)[-1].frame["streams"][0]["StartDate"]
    assert format_utc(START_US - 40 * SECOND) <= since <= last
