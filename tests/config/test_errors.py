"""The tree of errors: exit statuses, and that the drawing is the truth (contract 6 and 7)."""

from __future__ import annotations

import inspect
import re

from worker import errors
from worker.errors import CancelWorkerError, ConfigError, TopologyError, VenueRefusedError


def test_the_drawing_shows_every_error_with_its_exit_status() -> None:
    drawn = dict(re.findall(r"(\w+Error) +exit (\d)", errors.__doc__ or ""))
    classes = {
        name: str(found.exit_status)
        for name, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, CancelWorkerError)
    }
    assert drawn == classes


def test_a_topology_error_names_object_argument_and_both_values() -> None:
    error = TopologyError("queue cancel.kill", "x-delivery-limit", 100000, 20)
    assert str(error) == "queue cancel.kill: x-delivery-limit should be 100000, the broker has 20"
    assert (error.object, error.argument, error.wanted, error.found) == (
        "queue cancel.kill", "x-delivery-limit", 100000, 20,
    )  # fmt: skip
    absent = TopologyError("queue cancel.kill", "x-overflow", "reject-publish", None, "policy")
    assert str(absent) == "queue cancel.kill: x-overflow should be reject-publish, the broker has none (policy)"
    surplus = TopologyError("queue cancel.kill", "x-expires", None, 5)
    assert str(surplus) == "queue cancel.kill: x-expires should not be set, the broker has 5"
    assert str(TopologyError("exchange cancel.dead")) == "exchange cancel.dead is missing"


def test_a_config_error_is_a_line_for_each_problem() -> None:
    assert ConfigError("one").problems == ("one",)
    assert str(ConfigError(["one", "two"])) == "one\ntwo"


def test_a_refused_log_in_keeps_status_and_retry_after() -> None:
    error = VenueRefusedError(429, "the upgrade was answered with 429", 2.5)
    assert (error.status, error.retry_after_s, str(error)) == (429, 2.5, "the upgrade was answered with 429")
