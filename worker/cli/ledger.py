"""What a mass cancel has come to, in words (contract section 5)."""

from __future__ import annotations

from worker.wire.seen import SeenMass


def counts_of(mass: SeenMass) -> str:
    """``matched 3: 2 canceled, 1 rejected; 2 sweeps, 0.8 s``; what is nought is left out."""
    kinds = {
        "canceled": mass.canceled,
        "already closed": mass.already_closed,
        "rejected": mass.rejected,
        "unknown": mass.unknown,
        "not sent": mass.unsent,
    }
    parts = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    sweeps = "1 sweep" if mass.sweeps == 1 else f"{mass.sweeps} sweeps"
    restarted = ", begun anew" if mass.restarted else ""
    return f"matched {mass.matched}{': ' if parts else ''}{parts}; {sweeps}, {mass.elapsed_ms / 1e3:.1f} s{restarted}"
