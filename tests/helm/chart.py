"""The chart, rendered by a real helm: what the tests of this folder share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "cancel-worker"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))

Manifest = dict[str, Any]
Values = Mapping[str, Any]

SECRETS: Values = {"broker": {"existingSecret": "broker"}, "venue": {"existingSecret": "venue"}}
LEAST: Values = {"secrets": SECRETS}
"""The least values that the chart accepts."""


class HelmError(Exception):
    """helm ended with another status than 0; the message is what it wrote to stderr."""


class Helm(NamedTuple):
    """One helm binary, with folders of its own for cache and settings."""

    binary: Path
    environment: dict[str, str]

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output of ``helm arguments``. Raises HelmError."""
        done = subprocess.run(
            [self.binary, *arguments],
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            raise HelmError(done.stdout + done.stderr)
        return done.stdout

    def render(
        self,
        values: Values | None = None,
        *,
        file: Path | None = None,
        release: str = "trading",
        extra: Sequence[str] = (),
    ) -> list[Manifest]:
        """Every object that ``helm template`` renders, from a file of values or from ``values``, or from both
        (``values`` win). Raises HelmError."""
        arguments = ["template", release, str(CHART), "--namespace", "orders", *extra]
        if file is not None:
            arguments += ["--values", str(file)]
        if values is not None:
            arguments += ["--values", "-"]
        text = self.run(*arguments, stdin=None if values is None else json.dumps(values))
        return [manifest for manifest in yaml.load_all(text, _NoRepeats) if manifest]


class _NoRepeats(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: helm 4 applies on the server's side, which refuses it too."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"keys that stand twice: {repeated}", node.start_mark)
        return super().construct_mapping(node, deep)


def one(manifests: Sequence[Manifest], kind: str) -> Manifest:
    """The only object of its kind."""
    (manifest,) = of(manifests, kind)
    return manifest


def of(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    """The objects of one kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pod(manifests: Sequence[Manifest]) -> Manifest:
    """The pod template's spec."""
    spec: Manifest = one(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(manifests: Sequence[Manifest]) -> Manifest:
    """The only container."""
    (only,) = pod(manifests)["containers"]
    found: Manifest = only
    return found


def config_toml(manifests: Sequence[Manifest]) -> str:
    """The configuration file that the pod reads."""
    text: str = one(manifests, "ConfigMap")["data"]["config.toml"]
    return text


def tree(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every leaf of nested mappings and lists, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from tree(inner, (*path, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from tree(inner, (*path, str(index)))
    else:
        yield path, value
