"""Every kind of bad configuration is told in one clear line: where, which key, which rule; never a secret."""

from __future__ import annotations

import pytest

from worker.config import parse
from worker.errors import ConfigError

SECRET = "hunter2hunter2"

FILES = [
    # the file as such
    ("no TOML", "x = = 1", "c.toml: is not TOML: Invalid value (at line 1, column 5)"),
    (
        "a key twice",
        "[ops]\nport = 1\nport = 2",
        "c.toml: is not TOML: Cannot overwrite a value (at end of document)",
    ),
    ("no UTF-8", b"[ops]\nhost = '\xff'", "c.toml: is not UTF-8 text"),
    (
        "nested too deeply",
        f"x = {'[' * 5000}",
        "c.toml: is not usable TOML: a number too long, or nested too deeply",
    ),
    (
        "an endless number",
        f"[ops]\nport = {'9' * 5000}",
        "c.toml: is not usable TOML: a number too long, or nested too deeply",
    ),
    ("larger than any configuration", b"#" * 1048577, "c.toml: must be at most 1048576 bytes"),
    # unknown names
    ("unknown section", "[venu]\n", "c.toml: [venu] is not a known section; did you mean venue?"),
    ("unknown section, nothing like it", "[zzz]\n", "c.toml: [zzz] is not a known section"),
    (
        "unknown key",
        "[venue]\nsesions = 2",
        "c.toml: venue.sesions is not a known key; did you mean venue.sessions?",
    ),
    ("key outside a section", "port = 1", "c.toml: port is not in a section; did you mean ops.port?"),
    ("section is a list", "[[ops]]\nport = 1", "c.toml: ops is not in a section"),
    (
        "wrong case",
        "[ops]\nPort = 1",
        "c.toml: ops.Port is not a known key; did you mean ops.port?",
    ),
    (
        "a key with a newline in it",
        '[ops]\n"po\\nrt" = 1',
        "c.toml: ops.po\\nrt is not a known key; did you mean ops.port?",
    ),
    # wrong types
    (
        "text for a whole number",
        '[ops]\nport = "80"',
        'c.toml: ops.port must be a whole number from 0 to 65535, got "80"',
    ),
    (
        "bool for a whole number",
        "[ops]\nport = true",
        "c.toml: ops.port must be a whole number from 0 to 65535, got true",
    ),
    (
        "float for a whole number",
        "[venue]\nsessions = 2.0",
        "c.toml: venue.sessions must be a whole number from 1 to 100, got 2.0",
    ),
    ("number for a bool", "[broker]\ndeclare = 1", "c.toml: broker.declare must be true or false, got 1"),
    (
        "bool for a number",
        "[shutdown]\ngrace = false",
        "c.toml: shutdown.grace must be a number from 0 to 86400, got false",
    ),
    (
        "table for a number",
        "[shutdown.grace]\n",
        "c.toml: shutdown.grace must be a number from 0 to 86400, got a table",
    ),
    (
        "time for a text",
        "[ops]\nhost = 2026-01-01",
        "c.toml: ops.host must be a text of 1 to 255 bytes without control characters, got a date or time",
    ),
    (
        "text for a list",
        '[authorization]\nkill_users = "risk"',
        (
            "c.toml: authorization.kill_users must be a list, each a text of 1 to 255 bytes without control characters"
            ', got "risk"'
        ),
    ),
    (
        "number in a list of texts",
        "[authorization]\nkill_users = [1]",
        (
            "c.toml: authorization.kill_users must be a list, each a text of 1 to 255 bytes without control characters"
            ", got a list"
        ),
    ),
    # out of range
    (
        "below the range",
        "[venue]\nsessions = 0",
        "c.toml: venue.sessions must be a whole number from 1 to 100, got 0",
    ),
    (
        "above the range",
        "[broker]\nprefetch = 65536",
        "c.toml: broker.prefetch must be a whole number from 1 to 65535, got 65536",
    ),
    (
        "zero where none makes no sense",
        "[venue]\nreport_timeout = 0",
        "c.toml: venue.report_timeout must be a number above 0 and up to 86400, got 0",
    ),
    (
        "not a number",
        "[venue]\nreport_timeout = nan",
        "c.toml: venue.report_timeout must be a number above 0 and up to 86400, got nan",
    ),
    (
        "infinity",
        "[kill]\nrate_limit = inf",
        "c.toml: kill.rate_limit must be a number from 0 to 1000000, got inf",
    ),
    (
        "no such word",
        '[log]\nlevel = "INFO"',
        'c.toml: log.level must be one of "debug", "error", "info", "warning", got "INFO"',
    ),
    (
        "delivery limit -1, which drops at the first return on RabbitMQ 3.10",
        "[broker]\ndelivery_limit = -1",
        "c.toml: broker.delivery_limit must be a whole number from 1 to 9007199254740992, got -1",
    ),
    (
        "empty name",
        '[broker]\nkill_queue = ""',
        'c.toml: broker.kill_queue must be a text of 1 to 255 bytes without control characters, got ""',
    ),
    (
        "name longer than AMQP's short string, in bytes",
        f'[broker]\nkill_queue = "{"é" * 128}"',
        (
            "c.toml: broker.kill_queue must be a text of 1 to 255 bytes without control characters, got "
            f'"{chr(92)}xe9{(chr(92) + "xe9") * 56}..."'
        ),
    ),
    (
        "control character",
        '[broker]\nkill_queue = "a\\u0000b"',
        f'c.toml: broker.kill_queue must be a text of 1 to 255 bytes without control characters, got "a{chr(92)}x00b"',
    ),
    (
        "no unit",
        '[broker]\naudit_max_age = "30"',
        (
            "c.toml: broker.audit_max_age must be a text of a whole number and a unit (Y, M, D, h, m or s), such as 30D"
            ', got "30"'
        ),
    ),
    (
        "a filter that nobody passes",
        "[kill]\ncustomer_users = []",
        (
            "c.toml: kill.customer_users must be a list, not empty, each a text of 1 to 255 bytes without control "
            "characters, got an empty list"
        ),
    ),
    (
        "status that is no error",
        "[venue]\nfatal_statuses = [200]",
        "c.toml: venue.fatal_statuses must be a list, each a whole number from 400 to 599, got a list",
    ),
    # URLs
    (
        "plain WebSocket to another machine",
        '[venue]\nurl = "ws://venue.example/ws/v1"',
        "c.toml: venue.url must begin with wss:// (ws:// is allowed for loopback hosts only)",
    ),
    (
        "other scheme",
        '[venue]\nurl = "https://venue.example/ws/v1"',
        "c.toml: venue.url must begin with wss:// or ws://",
    ),
    ("no host", '[venue]\nurl = "wss:///ws/v1"', "c.toml: venue.url must name a host"),
    (
        "no path",
        '[venue]\nurl = "wss://venue.example"',
        "c.toml: venue.url must end in a path without a final slash, such as /ws/v1",
    ),
    (
        "final slash, which would be signed",
        '[venue]\nurl = "wss://venue.example/ws/v1/"',
        "c.toml: venue.url must end in a path without a final slash, such as /ws/v1",
    ),
    (
        "user and password",
        f'[venue]\nurl = "wss://me:{SECRET}@venue.example/ws/v1"',
        "c.toml: venue.url must not carry a user or a password",
    ),
    (
        "query",
        '[venue]\nurl = "wss://venue.example/ws/v1?x=1"',
        "c.toml: venue.url must have no query and no fragment (in a password ? is written %3F and # %23)",
    ),
    (
        "port out of range",
        '[venue]\nurl = "wss://venue.example:65536/ws/v1"',
        "c.toml: venue.url must have a port from 1 to 65535, or none",
    ),
    (
        "other scheme of the broker",
        f'[broker]\nurl = "http://me:{SECRET}@rabbit/"',
        "c.toml: broker.url must begin with amqps:// or amqp://",
    ),
    (
        "an empty URL in the list",
        f'[broker]\nurl = "amqp://me:{SECRET}@rabbit/,"',
        "c.toml: broker.url must not hold an empty URL between its commas",
    ),
    # secrets
    (
        "secret of a wrong type",
        "[venue]\napi_secret = 123456789",
        "c.toml: venue.api_secret must be a text without control characters",
    ),
    (
        "secret in a table",
        f'[venue]\napi_secret = {{value = "{SECRET}"}}',
        "c.toml: venue.api_secret must be a text without control characters",
    ),
    (
        "secret with a newline",
        f'[venue]\napi_secret = "{SECRET}\\n"',
        "c.toml: venue.api_secret must be a text without control characters",
    ),
    (
        "secret with a blank",
        f'[venue]\napi_secret = "{SECRET} "',
        "c.toml: venue.api_secret must be one line of printable ASCII characters without blanks",
    ),
    ("empty secret", '[venue]\napi_key = ""', "c.toml: venue.api_key must not be empty"),
    (
        "secret and its file",
        f'[venue]\napi_secret = "{SECRET}"\napi_secret_file = "/run/s"',
        "c.toml: venue.api_secret and venue.api_secret_file must not both be set",
    ),
    # keys that must fit together
    (
        "waits the wrong way round",
        "[venue]\nreconnect_min = 31",
        "c.toml: venue.reconnect_min must not be above venue.reconnect_max: 31 > 30",
    ),
    (
        "more report sessions than sessions",
        "[venue]\nreport_sessions = 3",
        "c.toml: venue.report_sessions must not be above venue.sessions: 3 > 2",
    ),
    (
        "broker drops before the worker judges",
        "[broker]\ndelivery_limit = 10",
        "c.toml: broker.delivery_limit must be above broker.suspect_after: 10 <= 10",
    ),
    (
        "at-least-once without reject-publish",
        '[broker]\noverflow = "drop-head"',
        (
            'c.toml: broker.dead_letter_strategy can be "at-least-once" only with broker.overflow "reject-publish": '
            "RabbitMQ falls back in silence"
        ),
    ),
    (
        "one queue for two lanes",
        '[broker]\nkill_queue = "cancel.commands"',
        (
            "c.toml: broker.commands_queue and broker.kill_queue, broker.dead_queue, broker.audit_queue must differ: "
            "broker.commands_queue and broker.kill_queue are the same"
        ),
    ),
    ("key without certificate", '[broker]\nkey_file = "/k"', "c.toml: broker.key_file needs broker.cert_file"),
    (
        "filter that would hide reports",
        "[venue.extra_stream_fields]\nStatuses = ['New']",
        "c.toml: venue.extra_stream_fields must not set Statuses",
    ),
]


@pytest.mark.parametrize(("text", "line"), [row[1:] for row in FILES], ids=[row[0] for row in FILES])
def test_a_bad_file_gives_one_line(text: str | bytes, line: str) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ConfigError) as caught:
        parse([("c.toml", data)], {})
    assert caught.value.problems == (line,)
    assert str(caught.value) == line
    assert SECRET not in line
    assert "\n" not in line
    assert caught.value.exit_status == 2
    assert caught.value.__cause__ is None


VARIABLES = [
    ("unknown key", "CANCEL_WORKER__VENUE__SESION", "1", "is not a known variable; did you mean {}__VENUE__SESSIONS?"),
    ("unknown section", "CANCEL_WORKER__XX__YY", "1", "is not a known variable"),
    ("no key", "CANCEL_WORKER__VENUE", "1", "is not a known variable"),
    ("lower case", "CANCEL_WORKER__ops__port", "1", "is not a known variable; did you mean {}__OPS__PORT?"),
    ("all lower case", "cancel_worker__ops__port", "1", "is not a known variable; did you mean {}__OPS__PORT?"),
    ("one part too many", "CANCEL_WORKER__OPS__PORT__X", "1", "is not a known variable; did you mean {}__OPS__PORT?"),
    ("no number", "CANCEL_WORKER__OPS__PORT", "http", 'ops.port must be a whole number from 0 to 65535, got "http"'),
    ("empty", "CANCEL_WORKER__OPS__PORT", "", 'ops.port must be a whole number from 0 to 65535, got ""'),
    (
        "bool as Python has it",
        "CANCEL_WORKER__BROKER__DECLARE",
        "False",
        'broker.declare must be true or false, got "False"',
    ),
    (
        "a second key smuggled in",
        "CANCEL_WORKER__OPS__PORT",
        "1\nx = 2",
        f'ops.port must be a whole number from 0 to 65535, got "1{chr(92)}nx = 2"',
    ),
    (
        "bytes that are no UTF-8",
        "CANCEL_WORKER__OPS__HOST",
        "a\udcff",
        f'ops.host must be a text of 1 to 255 bytes without control characters, got "a{chr(92)}udcff"',
    ),
    (
        "secret with a tab",
        "CANCEL_WORKER__VENUE__API_SECRET",
        SECRET + "\t",
        "venue.api_secret must be a text without control characters",
    ),
    (
        "broker without a host",
        "CANCEL_WORKER__BROKER__URL",
        f"amqp://me:{SECRET}@/",
        "broker.url must name a host",
    ),
    (
        "password with a slash, which ends the host early",
        "CANCEL_WORKER__BROKER__URL",
        f"amqp://me:{SECRET}/x@rabbit/",
        "broker.url must have a / in a password written as %2F, and a @ in a virtual host as %40",
    ),
]


@pytest.mark.parametrize(
    ("variable", "raw", "problem"), [row[1:] for row in VARIABLES], ids=[row[0] for row in VARIABLES]
)
def test_a_bad_variable_gives_one_line(variable: str, raw: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse([], {variable: raw})
    assert caught.value.problems == (f"{variable}: {problem.format('CANCEL_WORKER')}",)
    assert SECRET not in str(caught.value)


def test_all_problems_are_told_at_once_in_the_order_of_their_sources() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(
            [("a.toml", b"[ops]\nport = -1\n[nope]\n"), ("b.toml", b"[log]\nformat = 1\n[venue]\nreconnect_min = 40")],
            {"CANCEL_WORKER__KILL__PREFETCH": "0"},
        )
    assert [line.split(" ")[0] + " " + line.split(" ")[1] for line in caught.value.problems] == [
        "a.toml: [nope]",
        "a.toml: ops.port",
        "b.toml: log.format",
        "CANCEL_WORKER__KILL__PREFETCH: kill.prefetch",
        "b.toml: venue.reconnect_min",
    ]


def test_keys_that_do_not_fit_name_the_source_in_force() -> None:
    files = [("a.toml", b"[venue]\nreconnect_max = 1"), ("b.toml", b"[venue]\nreconnect_min = 2")]
    with pytest.raises(ConfigError, match=r"^b\.toml: venue\.reconnect_min must not be above"):
        parse(files, {})


def test_a_value_that_is_bad_for_itself_is_not_compared_with_others() -> None:
    with pytest.raises(ConfigError) as caught:
        parse([("c.toml", b"[venue]\nreconnect_min = -1\nreconnect_max = 0.05")], {})
    assert len(caught.value.problems) == 1


def test_a_url_password_in_the_wrong_place_is_masked() -> None:
    with pytest.raises(ConfigError) as caught:
        parse([("c.toml", f'[log]\nlevel = "amqp://me:{SECRET}@rabbit/"\n"amqp://me:{SECRET}@x" = 1'.encode())], {})
    assert SECRET not in str(caught.value)
    assert "me:***@" in str(caught.value)
