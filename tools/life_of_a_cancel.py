"""Draw the life of a cancel from the table of legal moves: python tools/life_of_a_cancel.py

Prints the Mermaid diagram that stands in docs/architecture.md; a test compares the two.
"""

from __future__ import annotations

from worker.core.cancel import MOVES, Phase


def diagram() -> str:
    """The state diagram, moves in the order of the table."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    for phase in Phase:
        lines += [f"    {phase.value} --> {to.value}" for to in Phase if to in MOVES[phase]]
        if not MOVES[phase]:
            lines.append(f"    {phase.value} --> [*]")
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
