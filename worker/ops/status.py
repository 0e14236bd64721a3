"""``/status``: what an operator asks first, as one JSON object. Nothing in it is a secret."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from worker.config.secret import mask_url
from worker.core.stats import LANES, LINKS, Stats
from worker.wire.timestamp import format_utc

_KEPT_ERRORS: Final = 20
_LONGEST_ERROR: Final = 500


class SessionStatus(Struct, frozen=True):
    """One session of the pool.

    ``state`` is ``ready``, with ``since_us`` (UTC microseconds) when that began, or ``opening``; ``session_id`` is the
    venue's, from its hello.
    """

    slot: int
    state: str
    session_id: str | None = None
    since_us: int | None = None


class LastErrors:
    """The last few errors, newest last; an error that repeats is counted, not repeated."""

    def __init__(self) -> None:
        self._errors: deque[dict[str, Any]] = deque(maxlen=_KEPT_ERRORS)

    def add(self, at_us: int, source: str, text: str) -> None:
        """Keep an error of ``source`` (``broker``, ``venue``, ...) seen at ``at_us``, UTC microseconds."""
        shown = mask_url(" ".join(text.split()))[:_LONGEST_ERROR]
        at = format_utc(at_us)
        for error in self._errors:
            if error["source"] == source and error["text"] == shown:
                self._errors.remove(error)
                self._errors.append({**error, "at": at, "times": error["times"] + 1})
                return
        self._errors.append({"at": at, "source": source, "text": shown, "times": 1})

    def shown(self) -> list[dict[str, Any]]:
        """Each with ``at``, ``source``, ``text`` and ``times``."""
        return list(self._errors)


def status(
    *,
    worker: str,
    version: str,
    started_us: int,
    now_us: int,
    stats: Stats,
    reasons: Iterable[str],
    sessions: Iterable[SessionStatus],
    errors: LastErrors,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The object of ``/status``. ``reasons`` as ``/readyz`` gives them; ``extra`` is added at the end."""
    not_ready = list(reasons)
    return {
        "worker": worker,
        "version": version,
        "started": format_utc(started_us),
        "now": format_utc(now_us),
        "uptime_s": round(max(0, now_us - started_us) / 1_000_000, 3),
        "ready": not not_ready,
        "reasons": not_ready,
        "sessions": {
            "wanted": stats.sessions_wanted,
            "ready": stats.sessions_ready,
            "clock_offset_s": round(stats.clock_offset_s, 6),
            "each": [
                {
                    "slot": session.slot,
                    "state": session.state,
                    "session_id": session.session_id,
                    "since": None if session.since_us is None else format_utc(session.since_us),
                }
                for session in sessions
            ],
        },
        "broker": {
            link: {"connected": bool(stats.link_connected[link]), "blocked": bool(stats.link_blocked[link])}
            for link in LINKS
        },
        "lanes": {
            lane: {
                "waiting": stats.waiting[lane],
                "inflight": stats.inflight[lane],
                "doubtful": stats.doubtful[lane],
                "unconfirmed_events": stats.unconfirmed[lane],
                "unsettled_commands": stats.unsettled[lane],
                "oldest_command_s": round(stats.oldest_command_s[lane], 3),
            }
            for lane in LANES
        },
        "mass_cancels_running": stats.mass_running,
        "finals": dict(stats.finals),
        "loop_lag_s": round(stats.loop_lag_s, 6),
        "last_errors": errors.shown(),
        **(extra or {}),
    }
