"""Events on their way to the broker: until confirmed, one publish of an id at a time (contract 3, 4.1; faults A2)."""

from __future__ import annotations

import pytest

from tests.core.driver import Driver, confirmed
from tests.core.payloads import item
from worker.core.effects import OutEvent
from worker.core.facts import PublisherUp
from worker.wire.command import Lane


def end(driver: Driver, n: int = 1, lane: Lane = "cancel") -> None:
    """A command whose one final is decided."""
    driver.deliver(item(n), id=f"cmd-{n}", lane=lane)
    driver.report("Canceled", ClOrdID=f"y-{n}", OrderID=f"order-{n}")


def canceled(driver: Driver, n: int = 1, lane: Lane = "cancel") -> OutEvent:
    """The same, and the final is published."""
    end(driver, n, lane)
    return driver.published[-1]


@pytest.mark.parametrize("how", ["nack", "give_back"])
def test_a_refused_event_goes_out_again_after_growing_waits_under_the_same_id(how: str) -> None:
    driver = Driver(results={"retry_min": 0.1, "retry_max": 1.0})
    event = canceled(driver)
    waits = []
    for n in range(6):
        getattr(driver, how)(event)
        assert len(driver.published) == n + 1, "not at once"
        waits.append(driver.advance_until(lambda: len(driver.published) == n + 2, step=0.01))  # noqa: B023
    for n, wait in enumerate(waits, 1):
        assert 0.1 <= wait <= min(1.0, 0.1 * 2**n) + 0.011
    assert max(waits) > 0.3, "they grow"
    assert {id(each) for each in driver.published} == {id(event)}
    assert driver.settled == []
    driver.confirm()
    assert [each.how for each in driver.settled] == ["ack"]


def test_a_retry_that_a_new_link_made_needless_publishes_nothing_when_the_command_comes_once_more() -> None:
    """Confirmed after the reconnect, repeated for a second delivery: the old retry must not be a second one (A2)."""
    driver = Driver(results={"retry_min": 1.0, "retry_max": 1.0})
    driver.nack(canceled(driver))
    driver.lose_publisher("cancel")
    driver.step(PublisherUp("cancel"))
    driver.confirm()
    driver.deliver(item(1), id="cmd-1")
    assert [event.outcome for event in driver.unconfirmed] == ["canceled"]
    driver.advance(2)
    assert len(driver.unconfirmed) == 1
    assert len(driver.published) == 3
    driver.confirm()
    assert [each.how for each in driver.settled] == ["ack", "ack"]


def test_what_is_refused_is_named_until_it_is_confirmed() -> None:
    driver = Driver()
    event = canceled(driver)
    driver.give_back(event)
    assert "NO_ROUTE" in driver.engine.outbox.refused[event.event_id]
    assert [n.fields["routing_key"] for n in driver.notes if n.name == "event_refused"] == ["final.canceled.BTC-USD"]
    driver.advance(1)
    driver.confirm()
    assert driver.engine.outbox.refused == {}
    assert driver.engine.stats.events_returned["cancel"] == 1


def test_one_refused_event_holds_up_no_other() -> None:
    driver = Driver()
    driver.nack(canceled(driver, 1))
    canceled(driver, 2)
    driver.confirm()
    assert len(driver.settled) == 1


def test_what_was_not_confirmed_when_the_publisher_was_lost_goes_out_again_in_order() -> None:
    driver = Driver()
    events = [canceled(driver, n) for n in range(3)]
    driver.step(confirmed(driver.unconfirmed.pop(1)))
    driver.lose_publisher("cancel")
    end(driver, 7)
    driver.advance(60)
    assert driver.published == events, "nothing is published while the lane is down"
    driver.step(PublisherUp("cancel"))
    assert [e.event_id for e in driver.published[3:5]] == [events[0].event_id, events[2].event_id]
    assert len(driver.published) == 6
    driver.confirm()
    assert len(driver.settled) == 4
    assert list(driver.left_over()) == []


def test_a_retry_that_comes_due_while_the_publisher_is_down_waits_for_it() -> None:
    driver = Driver(results={"retry_min": 0.1})
    driver.nack(canceled(driver))
    driver.lose_publisher("cancel")
    driver.advance(10)
    assert len(driver.published) == 1
    driver.step(PublisherUp("cancel"))
    assert len(driver.published) == 2
    driver.advance(10)
    assert len(driver.published) == 2, "one publish is in flight, the retry is no second one"


def test_a_publisher_that_is_up_twice_publishes_nothing_twice() -> None:
    driver = Driver()
    canceled(driver)
    driver.step(PublisherUp("cancel"))
    assert len(driver.published) == 1


def test_the_lanes_publish_apart() -> None:
    driver = Driver()
    driver.lose_publisher("cancel")
    end(driver, 1)
    fast = canceled(driver, 2, "kill")
    assert driver.published == [fast]
    driver.confirm()
    assert [each.delivery.lane for each in driver.settled] == ["kill"]


def test_a_second_confirm_of_one_event_settles_nothing_twice() -> None:
    driver = Driver()
    event = canceled(driver)
    driver.confirm()
    driver.step(confirmed(event))
    assert len(driver.settled) == 1


def test_sending_does_not_wait_for_the_publishing_of_results() -> None:
    driver = Driver()
    driver.lose_publisher("cancel")
    for n in range(5):
        end(driver, n)
    assert len(driver.cancels_sent()) == 5


def test_how_long_the_oldest_event_has_waited() -> None:
    driver = Driver()
    outbox = driver.engine.outbox
    assert outbox.oldest_wait("cancel", driver.mono) == 0.0
    canceled(driver)
    driver.advance(3)
    assert outbox.oldest_wait("cancel", driver.mono) == pytest.approx(3.0)
    assert (outbox.unconfirmed("cancel"), outbox.unconfirmed("kill"), outbox.is_up("cancel")) == (1, 0, True)
