"""Who may do what, by the user_id that the broker checked (contract section 5)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.driver import Driver
from tests.core.payloads import item, order

WORKING = [order("New", OrderID=f"order-{n}", ClOrdID="ord-000417") for n in range(1, 10)]


@pytest.mark.parametrize(
    ("rules", "lane", "user", "headers", "allowed"),
    [
        ({}, "kill", None, {}, True),
        ({"cancel_users": ("risk",)}, "cancel", "risk", {}, True),
        ({"cancel_users": ("risk",)}, "cancel", "intern", {}, False),
        ({"cancel_users": ("risk",)}, "cancel", None, {}, False),
        ({"cancel_users": ("risk",)}, "kill", "intern", {}, True),
        ({"kill_users": ("risk",)}, "kill", "risk", {}, True),
        ({"kill_users": ("risk",)}, "kill", "intern", {}, False),
        ({"kill_users": ("risk",)}, "cancel", "intern", {}, True),
        ({"cancel_users": ()}, "cancel", "risk", {}, False),
        ({"mass_cancel_users": ("risk",)}, "cancel", "intern", {}, True),
        ({"requeue_users": ("ops",)}, "cancel", "ops", {"requeue_of": "c", "original_user": "risk"}, True),
        ({"requeue_users": ("ops",)}, "cancel", "intern", {"requeue_of": "c", "original_user": "risk"}, False),
        ({"requeue_users": ("ops",)}, "cancel", "intern", {"requeue_of": "c"}, False),
        ({"requeue_users": ("ops",)}, "cancel", None, {"requeue_of": "c", "original_user": "risk"}, False),
        ({"requeue_users": ("ops",)}, "cancel", None, {"requeue_of": "c"}, False),
        ({"requeue_users": ("ops",)}, "cancel", "risk", {"requeue_of": "c", "original_user": "risk"}, True),
        (
            {"requeue_users": ("ops",), "cancel_users": ("risk",)},
            "cancel", "risk", {"requeue_of": "c", "original_user": "risk"}, True,
        ),
        (
            {"requeue_users": ("ops",), "cancel_users": ("risk",)},
            "cancel", "intern", {"requeue_of": "c", "original_user": "intern"}, False,
        ),
    ],
)  # fmt: skip
def test_who_may_do_what(
    rules: dict[str, Any], lane: Any, user: str | None, headers: dict[str, object], allowed: bool
) -> None:
    driver = Driver(authorization=rules)
    driver.orders = WORKING
    delivery = driver.deliver(item(), lane=lane, user_id=user, headers=headers)
    assert bool(driver.cancels_sent()) is allowed
    if allowed:
        return
    event = driver.final(index=None)
    assert (event["outcome"], event["sent"], event["error"]["field"]) == ("unauthorized", "never", "user_id")
    driver.confirm()
    assert driver.settlement(delivery) == "dead_letter"
    assert driver.questions() == []


def test_an_unauthorized_mass_cancel_is_refused_before_anything_else() -> None:
    driver = Driver(authorization={"mass_cancel_users": ("risk",)})
    body = b'{"type":"OrderMassCancelRequest","data":[{"MassCancelRequestType":"AllOrders"}]}'
    driver.deliver(body=body, lane="kill", user_id="intern")
    assert driver.outcome(index=None) == "unauthorized"
