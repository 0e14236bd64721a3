"""Secrets: never shown, read anew at every use, told apart from nothing (contract 4.8 and 6)."""

from __future__ import annotations

import copy
import pickle
import string
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.config import Broker, Config, Secret, Venue, broker_urls, mask_url, redacted, venue_credentials
from worker.errors import ConfigError

TEXT = "hunter2hunter2"


def test_a_secret_shows_only_its_mask() -> None:
    secret = Secret(TEXT)
    venue = Venue(api_secret=secret)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>20}", "%s" % secret, repr(venue), repr([secret])]  # noqa: UP031
    assert not [text for text in shown if TEXT in text]
    assert secret.reveal() == TEXT


def test_a_secret_leaves_the_process_by_no_encoder() -> None:
    secret = Secret(TEXT)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(Venue(api_secret=secret))
    assert not hasattr(secret, "__dict__")


def test_secrets_compare_by_their_text() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert not Secret("")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("amqp://me:pw@rabbit:5672/%2F", "amqp://me:***@rabbit:5672/%2F"),
        ("amqp://me:pw@a/,amqps://you:pv@b/v", "amqp://me:***@a/,amqps://you:***@b/v"),
        ("amqp://me:pw@a/, amqp://b/", "amqp://me:***@a/, amqp://b/"),
        ("amqp://me:p/w@x@rabbit/", "amqp://me:***@rabbit/"),
        ("amqp://me:p,w@rabbit/", "amqp://me:***@rabbit/"),
        ("cannot reach amqp://me:pw@rabbit: refused", "cannot reach amqp://me:***@rabbit: refused"),
        ("amqp:/me:pw@rabbit: cannot read", "amqp:/me:***@rabbit: cannot read"),
        ("amqp://:pw@rabbit", "amqp://:***@rabbit"),
        ("wss://wss.prime.kraken.com/ws/v1", "wss://wss.prime.kraken.com/ws/v1"),
        ("amqp://rabbit:5672/", "amqp://rabbit:5672/"),
        ("desk@example.com at 10:00", "desk@example.com at 10:00"),
    ],
)
def test_the_password_of_a_url_is_masked(text: str, masked: str) -> None:
    assert mask_url(text) == masked
    assert mask_url(masked) == masked


VISIBLE = st.text(alphabet=string.ascii_letters + string.digits + "/@:,?#%!$&*", min_size=1)


@given(st.text(), VISIBLE, st.sampled_from(["", "/", "/v", ":5672/v"]))
def test_no_password_survives_the_mask(before: str, password: str, rest: str) -> None:
    marked = f"#{password}#"
    assert marked not in mask_url(f"{before} amqp://me:{marked}@rabbit{rest}")


def test_a_long_text_is_masked_in_a_time_that_grows_with_it() -> None:
    """A frame of the venue may be one word of megabytes, which comes to the log and the status page."""
    for text in ("a" * 300_000, "a" * 300_000 + "@", "a:/" * 100_000):
        began = time.process_time()
        assert mask_url(text) == text
        assert time.process_time() - began < 1, "0.02 s here; by the square of its length it would be half a minute"


def test_shown_configuration_holds_no_secret() -> None:
    config = Config(
        broker=Broker(url=Secret(f"amqp://me:{TEXT}@rabbit/")),
        venue=Venue(api_key=Secret(TEXT), api_secret=Secret(TEXT)),
    )
    shown = redacted(config)
    assert TEXT not in str(shown)
    assert shown["broker"]["url"] == "amqp://me:***@rabbit/"
    assert shown["venue"]["api_secret"] == "***"
    assert shown["venue"]["api_key_file"] is None
    assert shown["venue"]["fatal_statuses"] == [401, 403]
    assert list(shown) == list(Config.__struct_fields__)
    msgspec.json.encode(shown)


def test_a_rotated_secret_is_read_at_the_next_use(tmp_path: Path) -> None:
    url, key, secret = tmp_path / "url", tmp_path / "key", tmp_path / "secret"
    config = Config(
        broker=Broker(url=None, url_file=str(url)), venue=Venue(api_key_file=str(key), api_secret_file=str(secret))
    )
    for turn in "12":
        url.write_text(f"amqp://me:{turn}@rabbit/\n")
        key.write_text(f"KEY{turn}\n")
        secret.write_text(f"secret{turn}\r\n")
        assert broker_urls(config) == [f"amqp://me:{turn}@rabbit/"]
        assert venue_credentials(config) == (Secret(f"KEY{turn}"), Secret(f"secret{turn}"))


def test_several_broker_urls_keep_their_order() -> None:
    config = Config(broker=Broker(url=Secret("amqp://b/, amqps://a/v")))
    assert broker_urls(config) == ["amqp://b/", "amqps://a/v"]
    assert broker_urls(Config()) == ["amqp://guest:guest@localhost:5672/"]


def test_missing_venue_credentials_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        venue_credentials(Config())
    assert caught.value.problems == (
        "venue.api_key must be set, or venue.api_key_file",
        "venue.api_secret must be set, or venue.api_secret_file",
    )


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "must not be empty"),
        (b"\n", "must not be empty"),
        (b"hunter2\nhunter2", "must be one line of printable ASCII characters without blanks"),
        (b"hunter2\n\n", "must be one line of printable ASCII characters without blanks"),
        (b" hunter2", "must be one line of printable ASCII characters without blanks"),
        (b"hunter2\xff", "must be one line of printable ASCII characters without blanks"),
        (b"h" * 65537, "must be at most 65536 bytes"),
    ],
)
def test_a_bad_secret_file_is_told_by_key_and_path_without_its_content(
    tmp_path: Path, content: bytes, rule: str
) -> None:
    key, secret = tmp_path / "key", tmp_path / "secret"
    key.write_bytes(b"KEY")
    secret.write_bytes(content)
    config = Config(venue=Venue(api_key_file=str(key), api_secret_file=str(secret)))
    with pytest.raises(ConfigError) as caught:
        venue_credentials(config)
    (problem,) = caught.value.problems
    assert problem.startswith("venue.api_secret_file")
    assert problem.endswith(rule)
    assert "hunter2" not in problem


def test_a_secret_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = Config(broker=Broker(url=None, url_file=f"{tmp_path}/none"))
    with pytest.raises(ConfigError, match=r"\Abroker\.url_file: cannot read .*/none: No such file or directory\Z"):
        broker_urls(config)


def test_a_secret_put_where_its_path_belongs_is_not_shown() -> None:
    config = Config(broker=Broker(url=None, url_file="amqp://me:hunter2@rabbit/"))
    with pytest.raises(ConfigError) as caught:
        broker_urls(config)
    assert "hunter2" not in str(caught.value)
    venue = Config(venue=Venue(api_key=Secret("K"), api_secret_file=TEXT))
    with pytest.raises(ConfigError) as caught:
        venue_credentials(venue)
    assert caught.value.problems == ("venue.api_secret_file: cannot read the file: No such file or directory",)


def test_a_bad_url_in_the_file_names_the_file_s_key(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("amqp://me:hunter2@/")
    with pytest.raises(ConfigError) as caught:
        broker_urls(Config(broker=Broker(url=None, url_file=str(path))))
    assert caught.value.problems == ("broker.url_file must name a host",)
