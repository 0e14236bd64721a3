"""Time-outs do not keep ended cancels alive."""

from __future__ import annotations

from tests.core.driver import Driver
from tests.core.payloads import item
from worker.core.desk import LEAST_KEPT


def test_the_waits_of_ended_cancels_are_dropped_long_before_they_are_due() -> None:
    driver = Driver()
    for n in range(LEAST_KEPT + 100):
        driver.deliver(item(n), id=f"cmd-{n}")
        driver.report("PendingCancel", ClOrdID=f"y-{n}", OrderID=f"order-{n}")
        driver.report("Canceled", ClOrdID=f"y-{n}", OrderID=f"order-{n}")
    driver.confirm()
    still_open = driver.deliver(item(LEAST_KEPT + 200), id="open")
    driver.engine.tick(driver.now)
    desk = driver.engine.desk
    assert len(desk._unreported) == 1, "only the cancel that waits for its report"
    assert not desk._waits
    driver.advance(6)
    assert "doubtful" in driver.outcomes(), "whose time-out still comes"
    assert driver.settlement(still_open) is None
