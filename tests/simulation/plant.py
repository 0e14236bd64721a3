"""Bugs to be planted: each a small change of the worker's source that the simulation must turn red for.

``python -m tests.simulation.plant`` plants them one by one, each in a copy of the sources, and says which seed found
it and by which invariant; names as arguments choose some. A simulation that no bug turns red proves nothing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
SEEDS: Final = 200
"""A bug that so many seeds do not find counts as not found."""

COPIED: Final = ("worker", "tests/simulation")


class Bug(NamedTuple):
    """``old`` stands exactly once in ``path`` and becomes ``new``; ``found_by`` is how the violation begins."""

    name: str
    what: str
    found_by: str
    path: str
    old: str
    new: str


BUGS: Final = (
    Bug(
        "ack_before_confirm",
        "a command of several cancels is acked at the first confirm",
        "I1",
        "worker/core/command.py",
        "return self.unfinished == 0 and self.unconfirmed == 0",
        "return self.unfinished == 0",
    ),
    Bug(
        "returned_event_counts_as_stored",
        "an event that no queue took is treated as confirmed",
        "I1",
        "worker/core/engine.py",
        'self._refused(fact.event, f"no queue takes it: {fact.code} {fact.text}", now)',
        "self.intake.confirmed(fact.event, now)",
    ),
    Bug(
        "resend_without_look_up",
        "a redelivered command is sent as if it were new",
        "I5",
        "worker/core/intake.py",
        "            if redelivered:\n                self._desk.doubt(",
        "            if suspect:\n                self._desk.doubt(",
    ),
    Bug(
        "time_out_means_canceled",
        "no report within venue.report_timeout is taken for the order's end",
        "I3",
        "worker/core/desk.py",
        'cancel.due == due:\n                    self.doubt(cancel, "no_report", now)',
        'cancel.due == due:\n                    self.finish(cancel, "canceled", now, live=False)',
    ),
    Bug(
        "pending_means_canceled",
        "a PendingCancel is taken for the order's end",
        "I3",
        "worker/core/cancel.py",
        'return "already_closed" if record.ord_status == "Filled" else "pending"',
        'return "canceled"',
    ),
    Bug(
        "deadline_ignored",
        "cancels are sent whatever their deadline",
        "I4",
        "worker/core/batch.py",
        "return deadline_us is not None and now.utc_us > deadline_us",
        "return deadline_us is not None and deadline_us < 0",
    ),
    Bug(
        "two_publishes_of_one_id",
        "the retry of a refused event does not ask whether a publish of it is in flight",
        "A2",
        "worker/core/outbox.py",
        "if self._up[event.lane] and not event.in_flight and self._events[event.lane].get(event.event_id) is event:",
        "if self._up[event.lane] and self._events[event.lane].get(event.event_id) is event:",
    ),
    Bug(
        "final_id_counts_sends",
        "the id of a final depends on how often the cancel was sent",
        "I2",
        "worker/core/events.py",
        "wire.final_id(command.command_id, cancel.key)",
        "wire.attempt_id(command.command_id, cancel.key, outcome, cancel.attempt)",
    ),
    Bug(
        "delivery_loss_unnoticed",
        "what was handed out on a lost channel still counts as held",
        "I7",
        "worker/core/engine.py",
        "self.intake.deliveries_lost(fact.lane, now)",
        "pass",
    ),
    Bug(
        "joined_delivery_forgotten",
        "a delivery that joins a running attempt is never settled",
        "I11",
        "worker/core/intake.py",
        "        there.deliveries.append(delivery)\n",
        "",
    ),
    Bug(
        "session_loss_ignored",
        "cancels sent on a lost session go on waiting for its reports",
        "I5",
        "worker/core/sessions.py",
        "self._doubt_frame(frame, now, on_lost_session=frame.session is session)",
        "pass",
    ),
    Bug(
        "silence_proves_absence",
        "a look-up that a timer ended proves that the venue knows no such order",
        "I3",
        "worker/core/lookups.py",
        'query.ended = "failed" if query.spoiled else sub.ended',
        'query.ended = "failed" if query.spoiled else "venue"',
    ),
    Bug(
        "flat_by_silence",
        "a snapshot that a timer ended proves a mass cancel flat",
        "I3",
        "worker/core/snapshot.py",
        'return self.ended == "venue" and self.spoiled is None',
        "return self.ended is not None",
    ),
    Bug(
        "earlier_cancels_forgotten",
        "a restarted mass cancel does not ask what an earlier process has sent",
        "I3",
        "worker/core/sweep.py",
        "self.recovered = not command.redelivered",
        "self.recovered = True",
    ),
    Bug(
        "index_entry_leaked",
        "a cancel that is handed back stays in the index by OrderID",
        "memory",
        "worker/core/inflight.py",
        "_remove(self._by_order, cancel.order_id, cancel)",
        "pass",
    ),
    Bug(
        "stream_left_open",
        "a look-up does not end its streams",
        "memory",
        "worker/core/lookups.py",
        "        inquiry.session.end(sub)\n",
        "",
    ),
    Bug(
        "refusal_remembered",
        "an event that was refused once counts as refused after its confirm",
        "memory",
        "worker/core/outbox.py",
        "self.refused.pop(event.event_id, None)",
        "pass",
    ),
    Bug(
        "sent_before_the_replay_ended",
        "a session carries cancels as soon as it is open",
        "I6",
        "worker/core/sessions.py",
        "if session.ready and (best is None or session.inflight < best.inflight):",
        "if best is None or session.inflight < best.inflight:",
    ),
    Bug(
        "report_made_up",
        "the report of a final is written anew from what was understood of it",
        "I3",
        "worker/core/desk.py",
        'self.finish(cancel, "canceled", now, record=record, raw=raw, live=False)',
        'self.finish(cancel, "canceled", now, record=record, raw=Raw(b\'{"ExecType":"Canceled"}\'), live=False)',
    ),
    Bug(
        "ledger_forgets_the_closed",
        "a mass cancel does not count the orders that somebody else closed",
        "I3",
        "worker/core/sweep.py",
        "counts[kind] += 1",
        'counts[kind] += kind != "already_closed"',
    ),
    Bug(
        "pending_given_up",
        "a cancel that has been pending for too long is given up without asking",
        "I3",
        "worker/core/desk.py",
        'self.doubt(cancel, "pending", now)',
        'self.unresolved(cancel, now, "pending for too long")',
    ),
    Bug(
        "order_as_last_heard",
        "a final tells the order as it was last heard of, not as its report has it",
        "I2",
        "worker/core/desk.py",
        "cancel.order, cancel.order_live = order_state(record, order), live",
        "pass",
    ),
    Bug(
        "live_end_of_a_redelivery",
        "a redelivered cancel is ended by what comes live before the history was read",
        "I2",
        "worker/core/cancel.py",
        "return not self.history_read and (self.duplicate or (self.attempt == 0 and self.command.redelivered))",
        "return False",
    ),
    Bug(
        "list_before_the_reports",
        "an Order record ends a cancel though the replay was not read to its end",
        "I2",
        "worker/core/lookups.py",
        'sure = query.ended == "venue"',
        "sure = True",
    ),
    Bug(
        "list_without_replay",
        "a list of orders serves the look-ups after it, though their replays were not read to an end",
        "I5",
        "worker/core/lookups.py",
        '        if query.ended != "venue":\n            return\n',
        "",
    ),
)


class Finding(NamedTuple):
    """What the seeds made of one bug: ``seed`` None if none found it."""

    seed: int | None
    violations: list[str]
    output: str

    def is_by(self, bug: Bug) -> bool:
        """Whether the invariant that guards against the bug found it, alone or among others."""
        return any(v.startswith(bug.found_by) for v in self.violations)


def plant(bug: Bug, into: Path) -> None:
    """Copy the sources to ``into`` and change them. Raises ValueError if the text is not there exactly once."""
    for part in COPIED:
        shutil.copytree(ROOT / part, into / part, ignore=shutil.ignore_patterns("__pycache__"))
    path = into / bug.path
    source = path.read_text()
    if source.count(bug.old) != 1:
        raise ValueError(f"{bug.name}: {bug.path} holds {source.count(bug.old)} times: {bug.old.strip()}")
    path.write_text(source.replace(bug.old, bug.new))


def find(bug: Bug, seeds: int = SEEDS) -> Finding:
    """Plant the bug in a copy and run seeds there until one is red."""
    with tempfile.TemporaryDirectory(prefix="cancel-worker-bug.") as folder:
        plant(bug, Path(folder))
        arguments = [sys.executable, "-m", "tests.simulation", "--until-red", "--seeds", str(seeds)]
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    red = re.search(r"^seed (\d+): ", done.stdout, re.MULTILINE)
    violations = re.findall(r"^  (.*)$", done.stdout, re.MULTILINE)
    return Finding(int(red.group(1)) if red else None, violations, done.stdout + done.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.plant", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="BUG", help="the bugs to plant (default: all)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"seeds to try for each (default {SEEDS})")
    options = parser.parse_args()
    missed = 0
    for bug in BUGS:
        if options.names and bug.name not in options.names:
            continue
        finding = find(bug, options.seeds)
        if finding.seed is None:
            missed += 1
            print(f"{bug.name}: NOT FOUND by {options.seeds} seeds")
            print(finding.output)
        else:
            shown = next((v for v in finding.violations if v.startswith(bug.found_by)), finding.violations[0])
            print(f"{bug.name}: seed {finding.seed}: {shown}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
