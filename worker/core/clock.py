"""Time as an argument: the core never looks at a clock, it is told."""

from typing import NamedTuple


class Now(NamedTuple):
    """One instant on both clocks.

    ``mono`` is monotonic seconds and measures every wait; ``utc_us`` is UTC microseconds since the epoch and is used
    for deadlines (contract section 2) and for the times shown in events (contract section 3).
    """

    mono: float
    utc_us: int
