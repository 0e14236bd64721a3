"""The shape of the configuration: one frozen struct per section of contract 6, every key with its type, range and
default.

Durations are seconds, sizes bytes, rates per second and process. ``X | None`` with default None means that a key may be
left unset. The structs hold no rule that spans several keys; those are in ``checks``. Values come in through ``load``,
which
applies the ranges given here: a struct built by hand is not checked.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from worker.config.secret import Secret

Plain = str | int | float | bool
"""A plain value inside ``venue.extra_stream_fields``."""

# An AMQP name travels as a short string: at most 255 bytes (AMQP 0-9-1, 4.2.5.3). The loader counts bytes, not
# characters.
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Path = Annotated[str, Meta(min_length=1, max_length=4096)]
Age = Annotated[
    str,
    Meta(
        pattern=r"\A[1-9][0-9]{0,8}[YMDhms]\Z",
        description="a text of a whole number and a unit (Y, M, D, h, m or s), such as 30D",
    ),
]
Users = tuple[Annotated[str, Meta(min_length=1, max_length=255)], ...]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Days = Annotated[float, Meta(gt=0, le=3_660 * 86_400)]
Rate = Annotated[float, Meta(ge=0, le=1_000_000)]
Prefetch = Annotated[int, Meta(ge=1, le=65_535)]  # basic.qos carries 16 bits
Window = Annotated[int, Meta(ge=1, le=10_000_000)]
# RabbitMQ keeps it in 64 bits; -1 ("no limit") is refused: on 3.10 it drops a message at its first return (contract 1).
DeliveryLimit = Annotated[int, Meta(ge=1, le=2**53)]
StreamBytes = Annotated[int, Meta(ge=1_000_000, le=2**53)]
SegmentBytes = Annotated[int, Meta(ge=1_000_000, le=3_000_000_000)]  # the broker's own limit

DEFAULT_BROKER_URL = Secret("amqp://guest:guest@localhost:5672/")
SANDBOX_URL = "wss://wss.sandbox.prime.kraken.com/ws/v1"


class Broker(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[broker]``: RabbitMQ, the normal lane's bounds, and the topology of contract 1.

    Link
      url, url_file: AMQP URLs separated by ``,``, tried in turn, or the path of a file that holds them, read at every
        connect. Use ``broker_urls``, never these.
      ca_file, cert_file, key_file: PEM files for ``amqps``; unset ca_file: the system's authorities.
      connect_timeout: seconds for one attempt, TCP to connection.open-ok.
      rpc_timeout: seconds for one AMQP method that is answered; at least 1 (faults A13: a timed-out call costs its
        channel).
      heartbeat: seconds; a frozen broker is noticed after 3 x (heartbeat + 1) at the latest (faults A17).
      reconnect_min, reconnect_max: seconds; waits grow between them, with full jitter.
    Normal lane
      prefetch: commands; max_inflight: cancels; max_body: bytes of one command.
      hold_limit: seconds a delivery is held at most; before that it is handed back, goes on here, and joins again.
        Keep it below half the broker's consumer timeout (30 minutes by default, faults A12).
      suspect_after: deliveries after which a command is handled alone and never handed back (contract 4.6).
    Topology
      declare: True declares and binds all of it, False only checks that it exists.
      delivery_limit, dead_delivery_limit: ``x-delivery-limit`` of the lanes' queues and of the dead-letter queue.
      overflow, dead_letter_strategy: ``x-overflow`` and ``x-dead-letter-strategy`` of the lanes' queues.
      audit_max_age, audit_max_length_bytes, audit_segment_bytes: ``x-max-age``, ``x-max-length-bytes`` and
        ``x-stream-max-segment-size-bytes`` of the audit stream.
    """

    url: Secret | None = DEFAULT_BROKER_URL
    url_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    connect_timeout: Seconds = 5.0
    rpc_timeout: Annotated[float, Meta(ge=1, le=600)] = 10.0
    heartbeat: Annotated[int, Meta(ge=1, le=600)] = 5
    reconnect_min: Seconds = 0.1
    reconnect_max: Seconds = 10.0

    prefetch: Prefetch = 500
    max_inflight: Window = 20_000
    max_body: Annotated[int, Meta(ge=1, le=128 * 1024 * 1024)] = 1024 * 1024
    suspect_after: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    hold_limit: Seconds = 900.0

    declare: bool = True
    commands_exchange: Name = "cancel.commands"
    commands_queue: Name = "cancel.commands"
    cancel_key: Name = "cancel"
    kill_queue: Name = "cancel.kill"
    kill_key: Name = "kill"
    delivery_limit: DeliveryLimit = 100_000
    overflow: Literal["reject-publish", "drop-head"] = "reject-publish"
    dead_letter_strategy: Literal["at-least-once", "at-most-once"] = "at-least-once"
    dead_exchange: Name = "cancel.dead"
    dead_queue: Name = "cancel.dead"
    dead_delivery_limit: DeliveryLimit = 100_000
    results_exchange: Name = "cancel.results"
    audit_queue: Name = "cancel.audit"
    audit_key: Name = "#"
    audit_max_age: Age = "30D"
    audit_max_length_bytes: StreamBytes = 20_000_000_000
    audit_segment_bytes: SegmentBytes = 100_000_000


class Kill(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[kill]``: the kill lane's own bounds, and the mass cancel (contract 5).

    prefetch: commands; max_inflight: cancels; rate_limit: cancels per second, 0 for none.
    max_age: seconds from the AMQP timestamp to a mass cancel's deadline, where no header gives one.
    customer_users: whose orders a mass cancel without ``CustomerUser`` may touch; unset: every order the API key sees.
    normal_batch: cancels of the normal lane that go out at a time while kill cancels come; 0: as many as ever.
    read_orders: whether the list of orders is read when a session begins, so that a mass cancel can send at once.
    """

    prefetch: Prefetch = 200
    max_inflight: Window = 50_000
    rate_limit: Rate = 0.0
    normal_batch: Annotated[int, Meta(ge=0, le=10_000)] = 4
    max_age: Seconds = 60.0
    customer_users: Annotated[Users, Meta(min_length=1)] | None = None
    read_orders: bool = True


class Venue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venue]``: Kraken Prime, and every setting its protocol leaves open (protocol 9).

    Log-in
      url: host and path are both signed, without the port. Use ``venue_endpoint`` for its parts.
      api_key, api_secret, and each as ``_file``: read at every log-in. Use ``venue_credentials``, never these.
      ca_file: PEM file of the authorities to trust; unset: the system's.
      signature_alphabet, signature_padding: how ApiSign is written (protocol 1.3).
      timestamp_precision: ``seconds`` sends whole seconds with ``.000000Z``.
      connect_timeout: seconds, TCP to the 101; hello_timeout: seconds from the 101 to the ``hello``.
    Sessions
      sessions: how many are kept up; report_sessions: how many of them carry the reports, 0 for all.
      reconnect_min, reconnect_max: seconds, grown with full jitter; stable_after: seconds of ready after which they
        start over (faults W5).
      fatal_statuses: HTTP statuses that speak of the key; after auth_attempts of them in a row the waits are at least
        auth_retry_min seconds.
      ping_interval: seconds of quiet before an application Ping; ping_timeout: seconds to the next frame of any kind.
      unavailable_after: seconds without a ready session before ``worker_unavailable``.
    Frames
      max_batch: cancels in a frame; max_frame_bytes: bytes of one sent; max_message_bytes: bytes of one received.
      rate_limit: cancels per second of the normal lane; frames_per_second: per session, all kinds; 0 for none.
      target: which id of the order is sent where both are given; ``both`` sends both (contract 2).
    Reports
      report_timeout: seconds from the send to the first report; pending_timeout: seconds after a PendingCancel.
      snapshot_timeout: seconds without a frame after which a snapshot counts as ended, though never as proof of flat.
      statuses_form: whether and how the ``Statuses`` filter is sent when listing orders; page_array: name of the array
        in a ``page``; max_pages: of one subscription.
      report_fanout: whether every session gets every report.
      extra_stream_fields: merged into each subscribed stream, e.g. ``{User = "desk"}``.
    Doubt
      doubt_window: seconds of doubt, with a ready session, before ``unresolved``; unknown_wait: seconds over which
        look-ups must agree that there is no such order.
      lookup_min, lookup_max: seconds between look-ups of one cancel, grown with full jitter.
      lookback, overlap: seconds; a look-up starts at the command's time minus overlap, at most lookback ago.
      order_horizon: seconds; older orders are outside what the worker sees.
      max_resends: of one cancel; resend_id: ``new`` derives a fresh ClOrdID per attempt.
      refusal_codes: codes of error frames that say no for certain.
    """

    url: str = SANDBOX_URL
    api_key: Secret | None = None
    api_key_file: Path | None = None
    api_secret: Secret | None = None
    api_secret_file: Path | None = None
    ca_file: Path | None = None
    signature_alphabet: Literal["url", "standard"] = "url"
    signature_padding: bool = True
    timestamp_precision: Literal["micros", "seconds"] = "micros"
    connect_timeout: Seconds = 5.0
    hello_timeout: Seconds = 5.0

    sessions: Annotated[int, Meta(ge=1, le=100)] = 2
    report_sessions: Annotated[int, Meta(ge=0, le=100)] = 0
    reconnect_min: Seconds = 0.1
    reconnect_max: Seconds = 30.0
    stable_after: Seconds = 5.0
    fatal_statuses: tuple[Annotated[int, Meta(ge=400, le=599)], ...] = (401, 403)
    auth_attempts: Annotated[int, Meta(ge=1, le=100)] = 3
    auth_retry_min: Seconds = 30.0
    ping_interval: Seconds = 1.0
    ping_timeout: Seconds = 2.0
    unavailable_after: Seconds = 5.0

    max_batch: Annotated[int, Meta(ge=1, le=1000)] = 20
    max_frame_bytes: Annotated[int, Meta(ge=2048, le=16 * 1024 * 1024)] = 65_536
    max_message_bytes: Annotated[int, Meta(ge=65_536, le=1024 * 1024 * 1024)] = 16 * 1024 * 1024
    rate_limit: Rate = 0.0
    frames_per_second: Rate = 0.0
    target: Literal["order_id", "orig_cl_ord_id", "both"] = "order_id"

    report_timeout: Seconds = 5.0
    pending_timeout: Seconds = 30.0
    snapshot_timeout: Seconds = 2.0
    statuses_form: Literal["none", "array", "comma"] = "none"
    page_array: Literal["streams", "data"] = "streams"
    max_pages: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    report_fanout: Literal["unknown", "all", "own"] = "unknown"
    extra_stream_fields: dict[str, Plain | list[Plain]] = {}

    doubt_window: Seconds = 300.0
    unknown_wait: Annotated[float, Meta(ge=0, le=86_400)] = 5.0
    lookup_min: Seconds = 0.25
    lookup_max: Seconds = 5.0
    lookback: Seconds = 900.0
    overlap: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    order_horizon: Days = 30 * 86_400.0
    max_resends: Annotated[int, Meta(ge=0, le=1000)] = 10
    resend_id: Literal["same", "new"] = "same"
    refusal_codes: tuple[int, ...] = (1,)


class Results(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[results]``: publishing of events.

    confirm_timeout: seconds without a confirm after which the publisher's link counts as lost.
    reply_to: whether finals also go to a command's ``reply_to``.
    retry_min, retry_max: seconds between two publishes of a nacked or returned event, grown with full jitter.
    memory: cancels remembered after their end, so that a late report or a second delivery is known for what it is.
    """

    confirm_timeout: Seconds = 10.0
    reply_to: bool = True
    retry_min: Seconds = 0.1
    retry_max: Seconds = 30.0
    memory: Annotated[int, Meta(ge=0, le=10_000_000)] = 10_000


class Authorization(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[authorization]``: broker-checked ``user_id``s (contract 5). Unset: anyone; an empty list: nobody."""

    cancel_users: Users | None = None
    kill_users: Users | None = None
    mass_cancel_users: Users | None = None
    requeue_users: Users | None = None


class Shutdown(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[shutdown]``: grace, seconds from SIGTERM in which what is in flight may finish; 0 hands all back at once."""

    grace: Annotated[float, Meta(ge=0, le=86_400)] = 15.0


class Ops(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[ops]``: the HTTP endpoint of contract 8; port 0 switches it off."""

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[log]``: one line an event, on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration (contract 6). ``Config()`` is the built-in default; ``load`` makes one from files."""

    broker: Broker = Broker()
    kill: Kill = Kill()
    venue: Venue = Venue()
    results: Results = Results()
    authorization: Authorization = Authorization()
    shutdown: Shutdown = Shutdown()
    ops: Ops = Ops()
    log: Log = Log()
