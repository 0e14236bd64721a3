"""What the pool of sessions tells its user: plain synchronous calls, made from the loop, which must not raise."""

from __future__ import annotations

from typing import Protocol


class VenuePort(Protocol):
    """The pool's user (the runner). No call is ever made from within ``send``, ``drop`` or ``session_ready``.

    For one session the order is ``session_opened``, any number of ``frames_received``, one ``session_lost``, and
    nothing after it.
    """

    def session_opened(self, session: int, slot: int) -> None:
        """The venue answered the upgrade with 101.

        ``session`` counts up and never repeats; ``slot`` is 0 to sessions - 1.
        """

    def frames_received(self, session: int, messages: list[bytes]) -> None:
        """Whole messages, put together from their fragments, as one read brought them; none need be valid UTF-8
        (faults W11).
        """

    def session_lost(self, session: int, reason: str) -> None:
        """The session ended, whoever ended it. What was sent on it may still arrive (faults W1)."""

    def attempt_failed(self, slot: int, reason: str) -> None:
        """An attempt to log in came to nothing; the pool tries again by itself."""

    def batch_ended(self) -> None:
        """All that one read, one loss or one failed attempt had to tell was told: a good moment to flush."""
