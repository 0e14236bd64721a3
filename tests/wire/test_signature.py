"""The vectors of the venue's protocol (sections 1.2 to 1.4): invented secrets, every value computed."""

import hmac
from base64 import b64decode, urlsafe_b64encode

import pytest

from worker.wire.signature import api_sign, api_timestamp, signed_host_and_path, upgrade_headers
from worker.wire.timestamp import parse_utc

SECRET_A = "k3y0nly4testz9q7w2m5x8c1v6b0n4ht"
SECRET_B = "0examp1esecret7not8for9trading3x"
SANDBOX = "wss.sandbox.prime.kraken.com"
PRODUCTION = "wss.prime.kraken.com"

# name: secret, timestamp, host, standard base64
VECTORS = {
    "V1": (SECRET_A, "2019-02-13T05:17:32.000000Z", SANDBOX, "I90pvxl7hQNB8W+BM/Pa/yu33t1+3bls8VTVXsJoVqo="),
    "V2": (SECRET_A, "2019-02-13T05:17:32.000000Z", PRODUCTION, "MqjpV39bEZLzSY7GeQ9kT8duhaYUZiOTrJMPn1Q+qmA="),
    "V3": (SECRET_B, "2026-03-09T14:07:05.123456Z", PRODUCTION, "WiQoNgV0oYrixpV4McfnF9agemOB5b1JRI5qy7HhcpA="),
    "V4": (SECRET_B, "2026-03-09T09:00:13.000000Z", SANDBOX, "i4AmH/MOYsjBA01pFbM9RmWcqU4AZO7m6iLYnd+wWy8="),
    "V5": (SECRET_B, "2026-03-09T09:00:00.000000Z", SANDBOX, "AvY768623jruTDfhSQe1Awh7LpUSuxiYqXavDB8ECnA="),
}
# What typical mistakes make of V1.
WRONG = {
    "N1 host with :443": "h6Kv31S-wWc1vhVYN5In9wx16qZ21WuxF4sU3M5SfY8=",
    "N2 path /ws/v1/": "-Hevj5jhqdSiKfbIFL7ERMZUtHIdL1TCg0_3iOlvC1U=",
    "N3 extra LF at the end": "51ylyJ_CjwXzGSeMuPNm1QJRr1-gMJZh2ov3mK6U87w=",
    "N4 backslash and n for LF": "ErdgTA5fh2mW62p1KblVHNcaWM1W4Xkz08Ri_hIrnzo=",
    "N5 secret base64-decoded first": "IwwT5SoQO1WdA4NUtuNqSs-2luq95bSObBXLYt-lOuo=",
    "N6 milliseconds": "5U-obdj1U3ZPGgUEMO2ncOA_bJ3rtMNjc1kIbfq0aKU=",
}


@pytest.mark.parametrize("name", VECTORS)
def test_signature_is_the_one_of_the_protocol(name: str) -> None:
    secret, timestamp, host, standard = VECTORS[name]
    url_safe = standard.replace("+", "-").replace("/", "_")
    assert api_sign(secret, timestamp, host, "/ws/v1") == url_safe
    assert api_sign(secret, timestamp, host, "/ws/v1", alphabet="standard") == standard
    assert api_sign(secret, timestamp, host, "/ws/v1", padding=False) == url_safe[:-1]
    assert api_sign(secret, timestamp, host, "/ws/v1", "standard", padding=False) == standard[:-1]


def test_v1_is_the_digest_given_in_hex() -> None:
    from base64 import urlsafe_b64decode

    secret, timestamp, host, _ = VECTORS["V1"]
    digest = urlsafe_b64decode(api_sign(secret, timestamp, host, "/ws/v1"))
    assert digest.hex() == "23dd29bf197b850341f16f8133f3daff2bb7dedd7eddb96cf154d55ec26856aa"


@pytest.mark.parametrize(
    "url",
    [
        "wss://wss.sandbox.prime.kraken.com/ws/v1",
        "wss://wss.sandbox.prime.kraken.com:443/ws/v1",
        "wss://WSS.Sandbox.Prime.Kraken.com:443/ws/v1/",
        "wss://user:pass@wss.sandbox.prime.kraken.com/ws/v1//?a=b/#c",
    ],
)
def test_no_way_of_writing_the_url_yields_a_wrong_signature(url: str) -> None:
    secret, timestamp, _, standard = VECTORS["V1"]
    host, path = signed_host_and_path(url)
    signature = api_sign(secret, timestamp, host, path)
    assert signature == standard.replace("+", "-").replace("/", "_")
    assert signature not in WRONG.values()


@pytest.mark.parametrize(
    ("mistake", "timestamp", "host"),
    [
        ("N1 host with :443", "2019-02-13T05:17:32.000000Z", SANDBOX + ":443"),
        ("N6 milliseconds", "2019-02-13T05:17:32.000Z", SANDBOX),
    ],
)
def test_the_wrong_vectors_come_from_wrong_input_only(mistake: str, timestamp: str, host: str) -> None:
    # The signer signs what it is given: these two show that the URL and the clock must go through the functions here.
    assert api_sign(SECRET_A, timestamp, host, "/ws/v1") == WRONG[mistake]


def a_mistaken_signer(mistake: str) -> str:
    """V1's input signed by hand with one mistake in it."""
    secret, lines, timestamp = SECRET_A.encode(), ["GET", "", SANDBOX, "/ws/v1"], "2019-02-13T05:17:32.000000Z"
    if mistake == "N6 milliseconds":
        timestamp = "2019-02-13T05:17:32.000Z"
    if mistake == "N1 host with :443":
        lines[2] += ":443"
    if mistake == "N2 path /ws/v1/":
        lines[3] += "/"
    if mistake == "N5 secret base64-decoded first":
        secret = b64decode(SECRET_A)
    lines[1] = timestamp
    separator = r"\n" if mistake == "N4 backslash and n for LF" else "\n"
    text = separator.join(lines) + ("\n" if mistake == "N3 extra LF at the end" else "")
    return urlsafe_b64encode(hmac.digest(secret, text.encode(), "sha256")).decode()


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_yields_its_wrong_vector_and_the_signer_does_not(mistake: str) -> None:
    assert a_mistaken_signer(mistake) == WRONG[mistake]
    for alphabet in ("url", "standard"):
        assert api_sign(SECRET_A, "2019-02-13T05:17:32.000000Z", SANDBOX, "/ws/v1", alphabet) != WRONG[mistake]


def test_path_with_final_slash_or_query_is_refused() -> None:
    for path in ("/ws/v1/", "/ws/v1?x=1", "ws/v1", ""):
        with pytest.raises(ValueError, match="path"):
            api_sign(SECRET_A, "2019-02-13T05:17:32.000000Z", SANDBOX, path)


@pytest.mark.parametrize("secret", ["gehéim", "", "a b", SECRET_A + "\n", "\udc80", "\x7f"])
def test_secret_that_is_not_visible_ascii_is_refused_unquoted(secret: str) -> None:
    with pytest.raises(ValueError, match="the API secret must be visible ASCII") as caught:
        api_sign(secret, "2019-02-13T05:17:32.000000Z", SANDBOX, "/ws/v1")
    assert caught.value.__cause__ is None
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize("api_key", ["KEY\r\nX: y", "", "KÉY"])
def test_api_key_cannot_smuggle_a_header(api_key: str) -> None:
    with pytest.raises(ValueError, match="the API key must be visible ASCII"):
        upgrade_headers(api_key, SECRET_A, "2019-02-13T05:17:32.000000Z", SANDBOX, "/ws/v1")


def test_line_feed_in_host_or_timestamp_is_refused() -> None:
    with pytest.raises(ValueError, match="host"):
        api_sign(SECRET_A, "2019-02-13T05:17:32.000000Z", "a\nb", "/ws/v1")
    with pytest.raises(ValueError, match="timestamp"):
        api_sign(SECRET_A, "2019-02-13T05:17:32.000000Z\n", SANDBOX, "/ws/v1")


def test_upgrade_headers_are_the_three_of_the_protocol() -> None:
    secret, timestamp, host, standard = VECTORS["V3"]
    assert upgrade_headers("TESTKEY12345", secret, timestamp, host, "/ws/v1") == {
        "ApiKey": "TESTKEY12345",
        "ApiSign": standard.replace("+", "-").replace("/", "_"),
        "ApiTimestamp": timestamp,
    }
    other = upgrade_headers("TESTKEY12345", *VECTORS["V1"][:3], "/ws/v1", "standard", padding=False)
    assert other["ApiSign"] == VECTORS["V1"][3][:-1]


def test_api_timestamp_in_both_precisions() -> None:
    utc_us = parse_utc("2026-03-09T14:07:05.999999Z")
    assert api_timestamp(utc_us) == "2026-03-09T14:07:05.999999Z"
    assert api_timestamp(utc_us, "seconds") == "2026-03-09T14:07:05.000000Z"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://wss.prime.kraken.com/ws/v1", (PRODUCTION, "/ws/v1")),
        ("ws://127.0.0.1:9001/ws/v1", ("127.0.0.1", "/ws/v1")),
        ("ws://[::1]:9001/ws/v1/", ("::1", "/ws/v1")),
        ("ws://localhost", ("localhost", "/")),
        ("ws://localhost/", ("localhost", "/")),
    ],
)
def test_host_and_path_of_a_url(url: str, expected: tuple[str, str]) -> None:
    assert signed_host_and_path(url) == expected


@pytest.mark.parametrize("url", ["https://h/ws/v1", "wss:///ws/v1", "wss://[::1/ws", "h/ws/v1", ""])
def test_url_that_is_no_websocket_url_is_refused_unquoted(url: str) -> None:
    with pytest.raises(ValueError, match="the venue URL") as caught:
        signed_host_and_path(url)
    assert not url or url not in str(caught.value)
