"""What the simulated venue shall do: settings for everything the protocol leaves open, and behaviour per cancel.

A script says nothing about sockets or time; it is data, read from TOML (load.py) or built by a test. Durations are
seconds, rates per second. `[U]` in the protocol is a setting here, with the default a careful client should expect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from worker.simulator.plays import PLAY_NAMES, parse_step

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
ReasonForm = Literal["code", "text", "word"]
FillId = Literal["order", "cancel"]
UnknownId = Literal["NONE", "empty", "sent"]
How = Literal["reset", "drop"] | Annotated[int, Meta(ge=1000, le=4999)]
"""How a session ends: `reset` (TCP RST), `drop` (TCP end without a close frame), or a WebSocket close code."""


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The upgrade (protocol section 1). Empty `hosts`: the signed host is the one of the Host header, without port."""

    key: str = "SIMULATEDKEY"
    secret: str = "simulated-secret-of-no-value"  # noqa: S105 - guards nothing but this simulator
    path: str = "/ws/v1"
    hosts: tuple[str, ...] = ()
    alphabet: Literal["urlsafe", "standard", "both"] = "urlsafe"
    padding: Literal["required", "optional"] = "required"
    clock_skew: Seconds = 30.0
    refuse_reuse: bool = True
    refused_status: Annotated[int, Meta(ge=400, le=599)] = 401
    role: Literal["Trader", "Viewer"] = "Trader"
    viewer_answer: Literal["error", "reject"] = "error"
    max_sessions: Count = 0
    max_sessions_status: Annotated[int, Meta(ge=400, le=599)] = 429

    def __repr__(self) -> str:
        return f"Login(key={self.key!r}, secret='***')"


class Frames(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Envelope and session (protocol sections 2, 3.6, 3.7)."""

    seq_name: Literal["seqNum", "seq", "none"] = "seqNum"
    pong_seq: bool = True
    error_reqid: Literal["given", "absent", "zero"] = "given"
    close_after_error: bool = False
    any_used_reqid: bool = True
    max_frame: Positive = 1_048_576
    max_backlog: Positive = 268_435_456
    ping_interval: Seconds = 0.0


class Streams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Subscriptions, snapshots and pages (protocol sections 3.2 to 3.5)."""

    page_size: Positive = 500
    page_overlap: Count = 0
    page_form: Literal["streams", "data", "both"] = "both"
    statuses_form: Literal["array", "text", "both"] = "both"
    snapshot: Literal["full", "never"] = "full"
    empty_snapshot: bool = True
    snapshot_delay: Seconds = 0.0
    replay_order: Literal["time", "reversed", "shuffled"] = "time"
    repeat_cursor: bool = False
    live_while_paging: bool = True
    no_start_date: Literal["all", "open", "none"] = "all"
    report_fanout: Literal["all", "own"] = "all"
    records_per_frame: Positive = 1
    unknown_cancel_error: bool = True


class Cancels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """OrderCancelRequest as a whole (protocol sections 3.8, 5.4)."""

    auto_orders: bool = False
    max_batch: Count = 0
    max_batch_code: int = 1
    rate_limit: Annotated[float, Meta(ge=0)] = 0.0
    rate_code: int = 429
    bad_element: Literal["error", "reject", "drop"] = "error"
    duplicate_id: Literal["reject", "swallow"] = "reject"
    reason_form: ReasonForm = "code"
    unknown_id: UnknownId = "NONE"
    fill_id: FillId = "order"
    leaves_on_close: Literal["zero", "open"] = "zero"
    check_symbol: bool = True


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What becomes of one cancel. `steps`, if given, replaces the named play (plays.py lists both).

    `pending` None: the play's own habit. `lose`: ExecTypes (or "*") not delivered live but kept for the replay;
    `forget`: those kept nowhere. `status` overrides OrdStatus of a CancelRejected. `force`: carried out although
    another request on the order is running. `code`, `msg`: the error frame of play `error`. `cut`: the session ends
    `before` the frame is processed or `after` it, unseen reports included.
    """

    play: str = "cancel"
    steps: tuple[str, ...] = ()
    pending: bool | None = None
    part: Annotated[float, Meta(gt=0, lt=1)] = 0.4
    reason: int = 0
    reason_form: ReasonForm | None = None
    status: str | None = None
    text: str | None = None
    closed_by: str = "Fill"
    ends: str = "Replaced"
    settle: Seconds = 0.05
    fill_id: FillId | None = None
    unknown_id: UnknownId | None = None
    delay: Seconds = 0.0
    gap: Seconds = 0.0
    jitter: Seconds = 0.0
    duplicates: Count = 0
    altered: bool = False
    order: Literal["made", "reversed", "shuffled"] = "made"
    lose: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()
    force: bool = False
    code: int = 1
    msg: str = "invalid request"
    error_reqid: Literal["given", "absent", "zero"] | None = None
    cut: Literal["", "before", "after"] = ""
    cut_how: How = "reset"

    def __post_init__(self) -> None:
        if self.play not in PLAY_NAMES:
            raise ValueError(f"play must be one of {', '.join(PLAY_NAMES)}")
        for text in (*self.steps, self.closed_by, self.ends):
            parse_step(text)


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Behaviour by pattern (shell wildcards, all given ones must match); `count` 0: for ever."""

    behaviour: Behaviour
    symbol: str = "*"
    order_id: str = "*"
    cl_ord_id: str = "*"
    count: Count = 0


class Weighted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One share of the mix; the draw depends on seed and OrderID only, never on arrival order."""

    behaviour: Behaviour
    weight: Annotated[float, Meta(gt=0)] = 1.0


class Connect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What happens to upgrade attempts number `first` to `last` (from 1; `last` 0: all later ones).

    `status` 0 accepts, -1 never answers. `hello_delay`, `hello`: `wrong` sends another frame first. The cuts count
    what the venue sent on that session after the upgrade.
    """

    first: Positive = 1
    last: Count = 0
    status: Annotated[int, Meta(ge=-1, le=599)] = 0
    retry_after: str | None = None
    location: str | None = None
    hello: Literal["sent", "never", "wrong"] = "sent"
    hello_delay: Seconds = 0.0
    cut_after_frames: Count = 0
    cut_after_bytes: Count = 0
    cut_after: Seconds = 0.0
    cut_how: How = "reset"


class Placed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Orders that stand in the book, or appear `after` seconds; several when `count` is over 1."""

    symbol: str = "BTC-USD"
    qty: str = "0.5"
    price: str = "61250.00"
    side: Literal["Buy", "Sell"] = "Buy"
    order_id: str | None = None
    cl_ord_id: str | None = None
    rfq_id: str | None = None
    customer_user: str | None = None
    age: Seconds = 0.0
    after: Seconds = 0.0
    count: Positive = 1
    behaviour: tuple[Behaviour, ...] = ()


class Flow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Background life: new orders of our user and of others, per second."""

    order_rate: Annotated[float, Meta(ge=0)] = 0.0
    foreign_rate: Annotated[float, Meta(ge=0)] = 0.0
    max_open: Positive = 10_000
    symbols: Annotated[tuple[str, ...], Meta(min_length=1)] = ("BTC-USD", "ETH-USD", "SOL-USD")


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything about one simulated venue. Looked up per cancel: the order's own behaviour, the callback of a test,
    `rules` in order, `mix`, then `behaviour`."""

    seed: int = 1
    clock_offset: float = 0.0
    customer_user: str = "trader@example.com"
    max_reports: Positive = 200_000
    max_closed: Positive = 200_000
    max_ledger: Positive = 200_000
    login: Login = Login()
    frames: Frames = Frames()
    streams: Streams = Streams()
    cancels: Cancels = Cancels()
    flow: Flow = Flow()
    behaviour: Behaviour = Behaviour()
    rules: tuple[Rule, ...] = ()
    mix: tuple[Weighted, ...] = ()
    connect: tuple[Connect, ...] = ()
    orders: tuple[Placed, ...] = ()


class CancelItem(msgspec.Struct, frozen=True):
    """One element of an OrderCancelRequest that passed the checks of protocol section 3.8."""

    symbol: str
    cl_ord_id: str
    order_id: str | None
    orig_cl_ord_id: str | None
    transact_time: str


Chooser = Callable[[CancelItem], Behaviour | None]
"""A test's own choice; None leaves it to the script."""
