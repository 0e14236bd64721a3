"""Growing waits with full jitter: between log-ins, slow where the venue refuses the key (faults W5), and retries.

A wait after the n-th failure is uniform between ``least`` and a ceiling that doubles up to ``most`` (for log-ins from
``FIRST_CEILING`` times ``least`` on), so that many workers that lose the venue or the broker together come back spread
out and never in step.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, Literal

Failure = Literal["failed", "refused"]
"""``refused``: the venue answered and speaks of us (401, 403, other 3xx and 4xx); anything else is ``failed``."""

FIRST_CEILING: Final = 5.0


class Backoff:
    """The series of one slot of the pool. All times are seconds; the jitter is passed in, uniform in 0 to 1.

    From the ``refused_after``-th refusal in a row on, waits are at least ``refused_least`` (contract 6: 30 s after the
    third 401).
    """

    __slots__ = ("_ceiling", "_least", "_most", "_refused_after", "_refused_least", "refusals")

    def __init__(self, least: float, most: float, refused_after: int, refused_least: float) -> None:
        self._least = least
        self._most = max(least, most)
        self._refused_after = refused_after
        self._refused_least = refused_least
        self._ceiling = min(FIRST_CEILING * least, self._most)
        self.refusals = 0

    def next_delay(self, failure: Failure, jitter: float, retry_after: float = 0.0) -> float:
        """The wait after one more failure.

        ``retry_after`` (already bounded) is what the venue asked for: obeyed, then spread.
        """
        self.refusals = self.refusals + 1 if failure == "refused" else 0
        least, ceiling = self._least, self._ceiling
        self._ceiling = min(2.0 * ceiling, self._most)
        if self.refusals >= self._refused_after:
            least = max(least, self._refused_least)
            ceiling = max(self._most, 2.0 * least)
        return retry_after + _between(least, ceiling, jitter)

    def accepted(self) -> None:
        """The venue took the key.

        The waits go on growing: a venue that accepts and then closes is not well (faults W5).
        """
        self.refusals = 0

    def reset(self) -> None:
        """A session was ready for some time: begin anew."""
        self.refusals = 0
        self._ceiling = min(FIRST_CEILING * self._least, self._most)


def retry_wait(least: float, most: float, failures: int, *who: str) -> float:
    """Seconds to wait after the ``failures``-th failure in a row, from 1 on.

    What stands for chance is a digest of ``who`` (the worker, and what is tried again) and the count: each worker and
    each occasion has its own, and the same story can be told twice.
    """
    digest = sha256("\n".join((*who, str(failures))).encode(errors="replace")).digest()
    jitter = int.from_bytes(digest[:4], "big") / 2**32
    least = min(least, most)
    return _between(least, min(most, least * 2.0 ** min(failures, 30)), jitter)


def _between(least: float, most: float, jitter: float) -> float:
    # Clamped: least + jitter * (most - least) may round past either end.
    return min(max(least + jitter * (most - least), least), most)
