"""What makes a private node the same node over every restart: the files and variables that RabbitMQ reads it from."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

_PLUGINS: Final = ("rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_stream")
_LOOPBACK_ONLY: Final = "-kernel inet_dist_use_interface {127,0,0,1}"
_FEW_THREADS: Final = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"  # no busy waiting: the cores are shared
_FIRST_PORT: Final = 15000
_LAST_PORT: Final = 31999  # outgoing connections use 32768 and up, so none can take a port before the node binds it


class Ports(msgspec.Struct, frozen=True):
    """TCP ports on 127.0.0.1."""

    amqp: int
    amqps: int
    management: int
    prometheus: int
    stream: int
    distribution: int
    epmd: int


class Identity(msgspec.Struct, frozen=True):
    """Kept as node.json in the node's directory."""

    name: str
    user: str
    password: str
    cookie: str
    ports: Ports


def load_or_make(
    directory: Path, name: str, peer: Identity | None, tls: Path | None, settings: Mapping[str, str]
) -> Identity:
    """The identity of the node that lives in ``directory``; in an empty one a new node is laid out first.

    ``peer``: the node whose cluster a new one joins. ``tls``: a folder with ca.pem, server.pem and server.key.
    ``settings``: lines of rabbitmq.conf that win over ours.
    """
    state = directory / "node.json"
    if state.exists():
        return msgspec.json.decode(state.read_bytes(), type=Identity)
    identity = _new_identity(name, peer)
    lines = _configuration(identity) | (_tls(identity, tls) if tls else {}) | (_join(identity, peer) if peer else {})
    for folder in ("data", "log", "generated"):
        (directory / folder).mkdir(exist_ok=True)
    text = "".join(f"{key} = {value}\n" for key, value in (lines | dict(settings)).items())
    _write(directory / "rabbitmq.conf", text.encode(), 0o600)
    _write(directory / ".erlang.cookie", identity.cookie.encode(), 0o400)
    _write(directory / "advanced.config", b"[].\n", 0o600)
    _write(directory / "enabled_plugins", f"[{','.join(_PLUGINS)}].\n".encode(), 0o600)
    _write(directory / "env.conf", b"", 0o600)
    _write(state, msgspec.json.encode(identity), 0o600)
    return identity


def environment_of(directory: Path, identity: Identity, search_path: str) -> dict[str, str]:
    """Environment of all processes of the node: ours, less what would lead RabbitMQ elsewhere."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
    return inherited | {
        "PATH": search_path,
        "HOME": str(directory),  # where Erlang looks for the cookie; and the mark by which guard.py knows our processes
        "RABBITMQ_NODENAME": identity.name,
        "RABBITMQ_USE_LONGNAME": "false",
        "RABBITMQ_CONF_ENV_FILE": str(directory / "env.conf"),  # an empty one, else /etc/rabbitmq is read
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "generated"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RUNNING_UNDER_SYSTEMD": "true",  # the launching shell becomes the node instead of waiting for it
        "RABBITMQ_DIST_PORT": str(identity.ports.distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_LOOPBACK_ONLY} {_FEW_THREADS}",
        "RABBITMQ_CTL_ERL_ARGS": f"{_LOOPBACK_ONLY} +S 1:1",
        "ERL_EPMD_PORT": str(identity.ports.epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_CRASH_DUMP": str(directory / "log" / "erl_crash.dump"),
    }


def _configuration(identity: Identity) -> dict[str, str]:
    ports = identity.ports
    return {
        "listeners.tcp.1": f"127.0.0.1:{ports.amqp}",
        "management.tcp.ip": "127.0.0.1",
        "management.tcp.port": str(ports.management),
        "prometheus.tcp.ip": "127.0.0.1",
        "prometheus.tcp.port": str(ports.prometheus),
        "stream.listeners.tcp.1": f"127.0.0.1:{ports.stream}",
        "default_user": identity.user,
        "default_pass": identity.password,
        "default_user_tags.administrator": "true",
        "default_permissions.configure": ".*",
        "default_permissions.read": ".*",
        "default_permissions.write": ".*",
        "vm_memory_high_watermark.absolute": "1GB",
        "disk_free_limit.absolute": "200MB",
        "log.console": "false",
        "log.file.level": "info",
        "collect_statistics_interval": "1000",
    }


def _tls(identity: Identity, folder: Path) -> dict[str, str]:
    return {
        "listeners.ssl.1": f"127.0.0.1:{identity.ports.amqps}",
        "ssl_options.cacertfile": str(folder.resolve() / "ca.pem"),
        "ssl_options.certfile": str(folder.resolve() / "server.pem"),
        "ssl_options.keyfile": str(folder.resolve() / "server.key"),
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "false",
        "ssl_options.versions.1": "tlsv1.3",
        "ssl_options.versions.2": "tlsv1.2",
    }


def _join(identity: Identity, peer: Identity) -> dict[str, str]:
    """A blank node asks these at its first boot, and joins the one that answers."""
    return {
        "cluster_formation.peer_discovery_backend": "classic_config",
        "cluster_formation.classic_config.nodes.1": peer.name,
        "cluster_formation.classic_config.nodes.2": identity.name,
    }


def _new_identity(name: str, peer: Identity | None) -> Identity:
    amqp, amqps, management, prometheus, stream, distribution, epmd = _free_ports(7)
    if peer is not None:
        epmd = peer.ports.epmd
    return Identity(
        name=f"{name}@localhost",
        user=peer.user if peer else "worker",
        password=peer.password if peer else secrets.token_urlsafe(12),
        cookie=peer.cookie if peer else secrets.token_hex(16),
        ports=Ports(amqp, amqps, management, prometheus, stream, distribution, epmd),
    )


def _free_ports(count: int) -> list[int]:
    """Chosen by the system's chance: test processes that share a random seed must not choose the same."""
    ports: list[int] = []
    while len(ports) < count:
        port = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT + 1)
        if port not in ports and _is_free(port):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
