"""Commands on their way in and out: read, recognised, admitted, joined, handed back, settled (contract 2, 4, 5)."""

from __future__ import annotations

from collections import deque
from hashlib import sha256
from typing import Final

from worker.config import Authorization, Config
from worker.core.cancel import Phase, cancel_of
from worker.core.clock import Now
from worker.core.command import CommandState
from worker.core.desk import Desk
from worker.core.effects import Effect, OutEvent, Settle, Settlement
from worker.core.ended import EndedCancel, EndedCommand, end_of_command
from worker.core.events import Events
from worker.core.facts import Delivery
from worker.core.outbox import LANES, Outbox
from worker.core.stats import Stats
from worker.core.sweeps import Sweeps
from worker.wire.command import (
    CancelItem,
    Command,
    Context,
    InvalidCommand,
    InvalidItem,
    Lane,
    MassCancelCommand,
    Properties,
    read_command,
)
from worker.wire.event import InputError
from worker.wire.timestamp import format_utc

CONFLICT_RULE: Final = "same_id_other_content"

HALF_DONE_KEPT: Final = 10_000
"""Commands known to have been sent in part; there are no more than the broker hands out before a channel is lost."""


class Intake:
    """All commands in flight by command id, and a bounded memory of ended ones."""

    def __init__(
        self,
        config: Config,
        desk: Desk,
        events: Events,
        sweeps: Sweeps,
        outbox: Outbox,
        effects: list[Effect],
        stats: Stats,
    ) -> None:
        self._config = config
        self._restricted = config.authorization != Authorization()
        self._desk = desk
        self._events = events
        self._sweeps = sweeps
        self._outbox = outbox
        self._effects = effects
        self._stats = stats
        self.commands: dict[str, CommandState] = {}
        self._verdicts: set[CommandState] = set()  # commands that are one event and nothing else, and repeated finals
        self._half_done: dict[str, None] = {}  # ids of commands that were sent in part and wait for their redelivery
        self._ended: dict[str, EndedCommand] = {}
        self._ended_first: deque[tuple[str, EndedCommand]] = deque()  # those that ended first stand first
        self._ended_size = 0
        self._suspects: dict[Lane, deque[CommandState]] = {"kill": deque(), "cancel": deque()}  # those that wait
        self._suspect: dict[Lane, CommandState] = {}  # the one that is handled

    @property
    def is_empty(self) -> bool:
        """No command is held."""
        return not self.commands and not self._verdicts

    # -- in

    def taken(self, delivery: Delivery, redelivered: bool, properties: Properties, body: bytes, now: Now) -> None:
        """A delivery came: it ends in exactly one settlement, or with its channel."""
        lane = delivery.lane
        self._stats.commands_received[lane] += 1
        if redelivered:
            self._stats.commands_redelivered[lane] += 1
        command = read_command(body, properties, self._config.broker.max_body)
        context = command.context
        state = self._state(delivery, redelivered, body, context, now)
        if self._half_done and state.command_id in self._half_done:
            del self._half_done[state.command_id]
            state.redelivered = True  # a publisher's duplicate may come before the redelivery, and is not marked
        error = self._refusal(command, context, lane) if self._restricted else None
        if isinstance(command, InvalidCommand):
            rejection = command.rejection
            error = InputError(rejection.field, rejection.rule, rejection.message)
            self._stats.commands_invalid[lane] += 1
            self._end_whole(state, "invalid", command.body_sha256_hex, error, now)
        elif error is not None:
            self._end_whole(state, "unauthorized", state.body_digest.hex(), error, now)
        elif not self._is_known(state, delivery, now):
            if isinstance(command, MassCancelCommand):
                self.commands[state.command_id] = state
                state.suspect = self._is_suspect(state)
                self._sweeps.begin(state, command, now)
            else:
                self._admit(state, command.items, now)

    def _state(self, delivery: Delivery, redelivered: bool, body: bytes, context: Context, now: Now) -> CommandState:
        again = redelivered or context.delivery_count > 0 or context.has_x_death or context.requeue_of is not None
        enqueued = format_utc(context.enqueued_us) if context.enqueued_us is not None else None
        return CommandState(
            context.command_id or "",
            context,
            delivery.lane,
            delivery,
            again,
            sha256(body).digest(),
            now.utc_us,
            self._events.at(now),
            enqueued,
            now.mono,
        )

    def _refusal(self, command: Command, context: Context, lane: Lane) -> InputError | None:
        """Whether the broker-checked ``user_id`` may do this: every list that applies must name it (contract 5)."""
        rules = self._config.authorization
        own = context.user_id is not None and context.user_id == context.original_user
        asked: list[tuple[str, tuple[str, ...] | None]] = []
        if context.requeue_of is not None and not own and rules.requeue_users is not None:
            asked.append(("requeue_users", rules.requeue_users))
        elif lane == "kill":
            asked.append(("kill_users", rules.kill_users))
        else:
            asked.append(("cancel_users", rules.cancel_users))
        if isinstance(command, MassCancelCommand):
            asked.append(("mass_cancel_users", rules.mass_cancel_users))
        for name, users in asked:
            if users is not None and context.user_id not in users:
                who = "a message without user_id" if context.user_id is None else f"user_id {context.user_id!a:.100}"
                return InputError("user_id", name, f"{who} is not in authorization.{name}")
        return None

    def _end_whole(self, state: CommandState, outcome: str, digest_hex: str, error: InputError, now: Now) -> None:
        self._verdicts.add(state)
        state.unfinished = 1
        self._events.whole_command(state, outcome, digest_hex, error, now)

    # -- known before

    def _is_known(self, state: CommandState, delivery: Delivery, now: Now) -> bool:
        """Deal with a command id that is in flight or ended a short while ago (contract 4.3). False: it is new."""
        there = self.commands.get(state.command_id)
        if there is not None:
            if there.body_digest != state.body_digest:
                self._conflict(state, now)
            else:
                self._join(there, state, delivery, now)
            return True
        ended = self._ended.get(state.command_id)
        if ended is None:
            return False
        if ended.body_digest != state.body_digest:
            self._conflict(state, now)
            return True
        if state.requeued:
            self._forget(state.command_id)
            for final in ended.finals:
                if isinstance(final, EndedCancel):
                    self._desk.inflight.drop(final)  # what is reported from now on is the new attempt's
            return False
        self._repeat(state, ended, now)
        return True

    def _conflict(self, state: CommandState, now: Now) -> None:
        message = "another command with this id and other content is known; neither replaces the other"
        error = InputError("message_id", CONFLICT_RULE, message)
        self._stats.commands_invalid[state.lane] += 1
        self._end_whole(state, "invalid", state.body_digest.hex(), error, now)

    def _join(self, there: CommandState, again: CommandState, delivery: Delivery, now: Now) -> None:
        """The same command again: one attempt goes on, and every delivery is settled with it (faults I7)."""
        self._stats.commands_joined[delivery.lane] += 1
        there.requeued = there.requeued or again.requeued
        orphaned = not there.deliveries
        there.deliveries.append(delivery)
        there.held_since = now.mono
        if orphaned:
            there.redelivered = True
        if delivery.lane == "kill" and there.lane == "cancel":
            self._promote(there, now)
        for cancel in there.cancels if there.sweep is None else ():  # a mass cancel's wait for no redelivery
            if cancel.phase is Phase.PARKED:
                self._desk.inflight.enter(cancel)
                if cancel.sent == "never":
                    cancel.sent = "maybe"  # somebody else may have had it meanwhile
                self._desk.doubt(cancel, "redelivered", now, announce=False)
        self.settle_if_done(there)

    def _promote(self, command: CommandState, now: Now) -> None:
        self._stats.commands_promoted += 1
        command.lane = "kill"
        if command in self._suspects["cancel"]:
            self._suspects["cancel"].remove(command)
            self._suspects["kill"].append(command)
            self._next_suspect(now)
            return
        for cancel in command.cancels:
            if cancel.phase is Phase.QUEUED:
                self._desk.queues["kill"].put(cancel)
            elif cancel.phase is Phase.DOUBT and cancel in self._desk.doubtful["cancel"]:
                self._desk.doubtful["cancel"].remove(cancel)
                self._desk.doubtful["kill"].append(cancel)

    def _repeat(self, state: CommandState, ended: EndedCommand, now: Now) -> None:
        """A command that ended a short while ago came again: the same finals, nothing sent."""
        self._stats.commands_joined[state.lane] += 1
        self._verdicts.add(state)
        state.dead = ended.dead
        for final in ended.finals:
            self._events.final_again(state, final if isinstance(final, bytes) else final.final, now)
        self.settle_if_done(state)  # of a mass cancel that was acked for its final in the audit stream nothing was kept

    # -- new

    def _admit(self, state: CommandState, items: list[CancelItem | InvalidItem], now: Now) -> None:
        lane = state.lane
        self.commands[state.command_id] = state
        self._stats.cancels_received[lane] += len(items)
        invalid: list[InvalidItem] = []
        enter, cancels, redelivered = self._desk.inflight.enter, state.cancels, state.redelivered
        for item in items:
            if isinstance(item, CancelItem):
                cancel = cancel_of(state, item)
                if redelivered:
                    cancel.sent = "maybe"
                cancels.append(cancel)
                enter(cancel)
            else:
                invalid.append(item)
        state.unfinished = len(items)
        for item in invalid:
            self._events.invalid_item(state, item, now)
        if self._is_suspect(state):
            state.suspect = True
            self._suspects[lane].append(state)
            self._next_suspect(now)
        else:
            self._begin(state, now)

    def _is_suspect(self, state: CommandState) -> bool:
        return state.context.delivery_count + 1 >= self._config.broker.suspect_after

    def _begin(self, state: CommandState, now: Now) -> None:
        """What is redelivered is doubtful before anything else (contract 4.3); the rest waits to be sent."""
        queue, suspect, redelivered = self._desk.queues[state.lane], state.suspect, state.redelivered
        for cancel in state.cancels:
            if cancel.phase is Phase.FINAL:
                continue  # told by a report while the command waited for its turn
            if suspect:
                cancel.alone = True
            if redelivered:
                self._desk.doubt(cancel, "redelivered", now, announce=False)
            else:
                queue.put(cancel)

    def _next_suspect(self, now: Now) -> None:
        """Commands that keep coming back are handled one at a time in each lane (contract 4.6, 4.5)."""
        for lane, waiting in self._suspects.items():
            while lane not in self._suspect and waiting:
                state = waiting.popleft()
                if self.commands.get(state.command_id) is state and state.unfinished:
                    self._suspect[lane] = state
                    self._begin(state, now)

    def _clear_suspect(self, command: CommandState) -> None:
        for lane, suspect in list(self._suspect.items()):
            if suspect is command:
                del self._suspect[lane]

    # -- out

    def confirmed(self, event: OutEvent, now: Now) -> None:
        """An event is stored. If it is a final, its cancel is over, and its command may be settled."""
        for stored in self._outbox.confirmed(event):
            if stored.cancel is not None:
                stored.ended, stored.cancel = self._desk.inflight.end(stored.cancel, stored.body), None
            if stored.command is not None:
                stored.command.unconfirmed -= 1
                self.settle_if_done(stored.command)
        if self._suspect:
            for suspect in [s for s in self._suspect.values() if s.may_be_settled]:
                self._clear_suspect(suspect)
            self._next_suspect(now)

    def settle_if_done(self, command: CommandState) -> None:
        """Ack or dead-letter a command all of whose finals are confirmed, and keep it in memory (contract 4.1)."""
        if not command.may_be_settled:
            return
        self._settle(command, "dead_letter" if command.dead else "ack")
        if command in self._verdicts:
            self._verdicts.discard(command)
        elif self.commands.get(command.command_id) is command:
            del self.commands[command.command_id]
            self._remember(command)
        command.let_go()

    def _settle(self, command: CommandState, how: Settlement) -> None:
        for delivery in command.deliveries:
            lane = delivery.lane
            self._effects.append(Settle(delivery, how))
            if how == "ack":
                self._stats.commands_acked[lane] += 1
            elif how == "dead_letter":
                self._stats.commands_dead_lettered[lane] += 1
            else:
                self._stats.commands_handed_back[lane] += 1
        command.deliveries = []

    def _remember(self, command: CommandState) -> None:
        most = self._config.results.memory
        if not most:
            return
        ended = end_of_command(command)
        self._ended[command.command_id] = ended
        self._ended_first.append((command.command_id, ended))
        self._ended_size += ended.size
        while self._ended_size > most:
            command_id, ended = self._ended_first.popleft()
            if self._ended.get(command_id) is ended:  # else it was requeued meanwhile, and forgotten then
                self._forget(command_id)

    def _forget(self, command_id: str) -> None:
        self._ended_size -= self._ended.pop(command_id).size

    # -- handing back

    def release_overdue(self, now: Now, next_look: float) -> None:
        """Hand back what ``next_look`` would find held longer than ``broker.hold_limit``.

        Here it goes on, and its redelivery joins it.

        The broker closes the channel of a consumer that holds a delivery too long, and takes back all of its
        deliveries (faults A12): one handed back in time costs nobody else anything.
        """
        limit = next_look - self._config.broker.hold_limit
        for command in [*self.commands.values(), *self._verdicts]:
            if command.deliveries and command.held_since <= limit:
                if command.suspect:
                    self._end_suspect(command, now)
                else:
                    self._settle(command, "requeue")

    def hand_back_unsent(self, lane: Lane, now: Now) -> None:
        """Commands of which nothing was sent go back to their queue; a suspect is ended instead (contract 4.6, 4.7)."""
        for command in [c for c in self.commands.values() if c.lane == lane and not c.was_sent]:
            if command.suspect:
                self._end_suspect(command, now)
            else:
                self._drop(command, now)
                self._settle(command, "requeue")

    def _end_suspect(self, command: CommandState, now: Now) -> None:
        count = command.context.delivery_count + 1
        message = f"delivered {count} times without an end: it is not handed back once more"
        if command.sweep is not None and command.sweep.stage != "done":  # else only its final's confirm is awaited
            self._sweeps.give_up(command.sweep, message, now)
        for cancel in command.cancels:
            if cancel.phase is not Phase.FINAL:
                self._desk.unresolved(cancel, now, message)

    def hand_back_all(self, now: Now) -> None:
        """Whatever is left goes back after ``shutdown.grace``; a suspect is ended instead (contract 4.6, 4.7)."""
        for command in list(self.commands.values()):
            if command.suspect:
                self._end_suspect(command, now)
            else:
                self._drop(command, now)
                self._settle(command, "requeue")
        for command in list(self._verdicts):
            self._verdicts.discard(command)
            self._settle(command, "requeue")

    def _drop(self, command: CommandState, now: Now) -> None:
        """Forget a command that comes again: by its redelivery, here or elsewhere."""
        del self.commands[command.command_id]
        self._sweeps.drop(command)
        told = {event.cancel for event in command.finals}
        for cancel in command.cancels:
            if cancel not in told:  # those are known by their reports until their final is stored, and after that
                self._desk.inflight.drop(cancel)
            if cancel.phase is not Phase.FINAL:
                self._desk.detach(cancel)
                cancel.phase = Phase.PARKED
                self._desk.let_joined_go_on(cancel, now)
        command.let_go()
        self._clear_suspect(command)

    def deliveries_lost(self, lane: Lane, now: Now) -> None:
        """The lane's deliveries are void: what was not sent comes back, what was sent is followed to its final."""
        for command in [*self.commands.values(), *self._verdicts]:
            if not any(d.lane == lane for d in command.deliveries):
                continue
            command.deliveries = [d for d in command.deliveries if d.lane != lane]
            if command.deliveries or command in self._verdicts:
                continue
            if not command.was_sent:
                self._drop(command, now)
                continue
            if command.sweep is not None:
                continue  # it goes on: what a mass cancel has begun is not left half done
            for cancel in command.cancels:
                if cancel.phase is Phase.QUEUED or (cancel.phase is Phase.DOUBT and cancel.attempt == 0):
                    cancel.move(Phase.PARKED)
        self._next_suspect(now)

    def drop_parked(self, now: Now) -> None:
        """Forget commands that only wait for a redelivery: nothing of them is under way here any more."""
        for command in [c for c in self.commands.values() if not c.deliveries and c.sweep is None]:
            if command.unconfirmed == 0 and all(c.phase in (Phase.PARKED, Phase.FINAL) for c in command.cancels):
                self._drop(command, now)
                self._half_done[command.command_id] = None
                if len(self._half_done) > HALF_DONE_KEPT:
                    del self._half_done[next(iter(self._half_done))]
        self._next_suspect(now)

    def oldest_received_us(self) -> dict[Lane, int | None]:
        """When the oldest command held was received, by lane; UTC microseconds."""
        oldest: dict[Lane, int | None] = {}
        for lane in LANES:
            oldest[lane] = min((c.received_us for c in self.commands.values() if c.lane == lane), default=None)
        return oldest

    def in_phase(self, phase: Phase) -> dict[Lane, int]:
        """Cancels that stand in ``phase``, by lane; walks over all of them."""
        found: dict[Lane, int] = {"kill": 0, "cancel": 0}
        for command in self.commands.values():
            found[command.lane] += sum(c.phase is phase for c in command.cancels)
        return found

    def counts(self) -> dict[Lane, int]:
        """Commands held, by lane."""
        held = [*self.commands.values(), *self._verdicts]
        return {lane: sum(c.lane == lane for c in held) for lane in LANES}
