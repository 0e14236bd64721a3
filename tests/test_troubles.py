"""What the status page says of a trouble that the engine noted: a sentence made of what is known, and never of None."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.core.driver import Driver
from worker.core.effects import Note
from worker.core.facts import EventNacked
from worker.runner import TROUBLES, trouble_text


def refuse_an_event(driver: Driver) -> None:
    driver.deliver(body=b"{")
    driver.step(EventNacked(driver.published[0]))


def skip_a_frame(driver: Driver) -> None:
    driver.frame(1, data=[])
    driver.raw(1, {"reqid": driver.main(1), "type": "ExecutionReport", "seqNum": 99, "data": []})


SHOWN: list[tuple[Callable[[Driver], None], str]] = [
    (refuse_an_event, "event_refused: nack: refused by a queue bound to the results exchange"),
    (lambda driver: driver.error(77, code=7, msg="go away"), "venue_error_frame: code 7: go away"),
    (lambda driver: driver.raw(1, {"type": "error", "error": {"code": 7}}), "venue_error_frame: code 7"),
    (lambda driver: driver.raw(1, {"type": "error", "error": {"msg": "go away"}}), "venue_error_frame: go away"),
    (lambda driver: driver.raw(1, {"type": "error"}), "venue_error_frame"),
    (lambda driver: driver.raw(1, b"{"), "bad_frame: unreadable frame of 1 bytes: DecodeError"),
    (lambda driver: driver.frame(1, data=[5]), "bad_record: unreadable record: ValidationError"),
    (skip_a_frame, "stream_gap: a frame number is missing"),
]


def troubles(driver: Driver) -> list[Note]:
    return [note for note in driver.notes if note.name in TROUBLES]


@pytest.mark.parametrize(("happens", "text"), SHOWN, ids=[text for _, text in SHOWN])
def test_a_trouble_is_told_by_what_is_known_of_it(happens: Callable[[Driver], None], text: str) -> None:
    driver = Driver()
    happens(driver)
    (note,) = troubles(driver)
    assert trouble_text(note) == text


def test_each_name_that_is_a_trouble_is_among_them() -> None:
    assert {text.partition(":")[0] for _, text in SHOWN} == set(TROUBLES)


def test_what_the_venue_says_is_noted_up_to_a_bound() -> None:
    """A frame may be megabytes long; the log and the status page are not the place for it."""
    driver = Driver()
    driver.error(77, code="c" * 100_000, msg="m" * 100_000)
    (note,) = troubles(driver)
    assert [len(str(note.fields[name])) for name in ("code", "msg")] == [500, 500]
