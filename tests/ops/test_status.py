"""The object of ``/status``."""

from __future__ import annotations

import msgspec

from worker.core.stats import Stats
from worker.ops.status import LastErrors, SessionStatus, status

T0 = 1_600_000_000_000_000


def test_status_tells_readiness_sessions_links_and_lanes() -> None:
    stats = Stats()
    stats.sessions_wanted = 2
    stats.link_connected["consume_kill"] = 1
    stats.waiting["kill"] = 4
    stats.oldest_command_s["kill"] = 1.23456
    errors = LastErrors()
    errors.add(T0, "venue", "upgrade answered with 401")
    shown = status(
        worker="w",
        version="1",
        started_us=T0,
        now_us=T0 + 2_500_000,
        stats=stats,
        reasons=["no session is ready"],
        sessions=[SessionStatus(0, "ready", "1109RQ13KXR00", T0), SessionStatus(1, "connecting")],
        errors=errors,
        extra={"queue": "cancel.kill"},
    )
    assert (shown["ready"], shown["reasons"], shown["uptime_s"]) == (False, ["no session is ready"], 2.5)
    assert shown["started"] == "2020-09-13T12:26:40.000000Z"
    assert shown["sessions"]["each"] == [
        {"slot": 0, "state": "ready", "session_id": "1109RQ13KXR00", "since": "2020-09-13T12:26:40.000000Z"},
        {"slot": 1, "state": "connecting", "session_id": None, "since": None},
    ]
    assert shown["broker"]["consume_kill"] == {"connected": True, "blocked": False}
    assert shown["lanes"]["kill"]["waiting"] == 4
    assert shown["lanes"]["kill"]["oldest_command_s"] == 1.235
    assert shown["last_errors"][0]["text"] == "upgrade answered with 401"
    assert shown["queue"] == "cancel.kill"
    msgspec.json.encode(shown)


def test_ready_means_no_reasons() -> None:
    shown = status(
        worker="w", version="1", started_us=T0, now_us=T0, stats=Stats(), reasons=[], sessions=[], errors=LastErrors()
    )
    assert shown["ready"] is True


def test_an_error_that_repeats_is_counted_and_moves_to_the_end() -> None:
    errors = LastErrors()
    errors.add(T0, "broker", "refused")
    errors.add(T0, "venue", "refused")
    errors.add(T0 + 1, "broker", "refused")
    assert [(error["source"], error["times"]) for error in errors.shown()] == [("venue", 1), ("broker", 2)]


def test_errors_are_bounded_and_show_no_password() -> None:
    errors = LastErrors()
    for number in range(100):
        errors.add(T0, "broker", f"{number} amqp://me:hunter2@rabbit/ {'x' * 1000}\n\nnext")
    assert len(errors.shown()) == 20
    for error in errors.shown():
        assert len(error["text"]) <= 500
        assert "\n" not in error["text"]
        assert "hunter2" not in error["text"]
