"""Bad input harms nobody else and comes back whole (contract 2, promise 4)."""

from __future__ import annotations

import json

import pytest

from tests.process.harness import DEAD, Stage, cancel_of
from tests.support.timing import SECOND
from tests.wire.bad_bodies import ITEMS, JSON, WHOLE


@pytest.mark.slow
async def test_bad_bodies_between_good_commands(stage: Stage) -> None:
    """One ``invalid`` with field and rule and one dead letter each, body and headers untouched; all good ones done."""
    await stage.open()
    worker = await stage.start()
    orders = iter(stage.place(len(WHOLE)))
    for number, (name, bad) in enumerate(WHOLE.items()):
        headers = {"note": name, "number": number, "reason": "why", "nested": {"a": [1, True, None]}}
        await stage.publish_body(
            bad.body,
            lane="kill" if number % 2 else "cancel",
            message_id=f"bad-{number}",
            content_type=bad.content_type,
            headers=headers,
            app_id="careless",
        )
        await stage.publish([cancel_of(next(orders))], lane="cancel" if number % 2 else "kill")
    await stage.settled(30 * SECOND)
    letters = {letter.message_id: letter for letter in await stage.dead_letters(len(WHOLE))}
    assert await worker.readiness() == []
    await stage.end_all()
    for number, (name, bad) in enumerate(WHOLE.items()):
        (event,) = stage.events.of(f"bad-{number}")
        body = event.body
        assert (body["outcome"], body["final"], body["index"]) == ("invalid", True, None), name
        assert (body["sent"], body["order_live"], body["attempt"]) == ("never", None, 0), name
        assert body["error"]["field"] == bad.field, (name, body["error"])
        assert body["error"]["rule"] and body["error"]["message"], name
        assert len(event.raw) < 4000, name
        assert (body["reason"], body["app_id"]) == ("why", "careless"), name
        assert event.message.routing_key == "final.invalid._"
        letter = letters[f"bad-{number}"]
        assert letter.body == bad.body, name
        assert letter.content_type == bad.content_type and letter.app_id == "careless"
        kept = {key: value for key, value in letter.headers.items() if not key.startswith("x-")}
        wanted = {"note": name, "number": number, "reason": "why", "nested": {"a": [1, True, None]}}
        assert kept == wanted, name
    finals = stage.check_finals(once=True)
    assert {finals[command_id, 0].outcome for command_id in stage.published} == {"canceled"}
    assert len(stage.venue.cancels) == len(WHOLE)


async def test_a_bad_item_spoils_itself_alone(stage: Stage) -> None:
    await stage.open()
    await stage.start()
    cases = {name: bad for name, bad in ITEMS.items() if bad.content_type == JSON and b"\\ud800" not in bad.body}
    bodies = {}
    for number, (_, bad) in enumerate(cases.items()):
        spoiled = json.loads(bad.body)["data"][1] if len(bad.body) < 5000 else {"Symbol": "X", "OrderID": 9**4000}
        if isinstance(spoiled, dict) and isinstance(spoiled.get("ClOrdID"), str) and len(spoiled["ClOrdID"]) == 36:
            spoiled["ClOrdID"] = f"{number:036d}"
        data = [cancel_of(o) for o in stage.place(3)]
        body = json.dumps({"type": "OrderCancelRequest", "data": [data[0], spoiled, data[1], data[2]]}).encode()
        bodies[f"item-{number}"] = body
        await stage.publish_body(body, message_id=f"item-{number}", headers={"note": "kept"})
        stage.published[f"item-{number}"] = 4
    await stage.settled()
    letters = {letter.message_id: letter for letter in await stage.dead_letters(len(cases))}
    await stage.end_all()
    finals = stage.check_finals(once=True)
    for number, (name, bad) in enumerate(cases.items()):
        command_id = f"item-{number}"
        told = [finals[command_id, i].outcome for i in range(4)]
        assert told == ["canceled", "invalid", "canceled", "canceled"], name
        invalid = finals[command_id, 1].body
        assert invalid["error"]["field"] == bad.field and invalid["error"]["rule"], (name, invalid["error"])
        assert invalid["sent"] == "never"
        assert letters[command_id].body == bodies[command_id]
        assert letters[command_id].headers["note"] == "kept"
    assert len(stage.venue.cancels) == 3 * len(cases)


async def test_a_command_without_any_id_is_invalid(stage: Stage) -> None:
    await stage.open()
    await stage.start()
    (order_id,) = stage.place(1)
    body = json.dumps({"type": "OrderCancelRequest", "data": [{"Symbol": "BTC-USD", "OrderID": order_id}]}).encode()
    for _ in range(2):
        await stage.publish_body(body)
    letters = await stage.dead_letters(2)
    assert {letter.body for letter in letters} == {body}
    await stage.end_all()
    invalid = stage.events.named("invalid")
    assert {event.body["error"]["field"] for event in invalid} == {"message_id"}
    assert {event.body["command_id"] for event in invalid} == {None}
    assert len({event.event_id for event in invalid}) == 1  # the body's SHA-256 stands for the id
    assert stage.venue.cancels == []
    assert stage.venue.truth()[order_id].open


@pytest.mark.parametrize("deadline", ["tomorrow", "2026-03-09T14:09:12", True, 1.5])
async def test_a_deadline_that_is_no_time_stops_the_command(stage: Stage, deadline: object) -> None:
    """Sending without it could be after it."""
    await stage.open()
    await stage.start()
    command_id = await stage.publish([cancel_of(o) for o in stage.place(1)], headers={"deadline": deadline})
    await stage.settled()
    (event,) = stage.events.of(command_id)
    assert (event.outcome, event.body["error"]["field"]) == ("invalid", "deadline")
    assert await stage.broker.take(DEAD, 1)
    assert stage.venue.cancels == []
