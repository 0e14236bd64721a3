"""A real helm of each major version that people install with, fetched once into .cache/helm by tools/get_helm.sh."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helm.chart import ROOT, Helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm 4. Where it can't be had the tests are skipped, but in CI they fail."""
    return _helm("4", tmp_path_factory)


@pytest.fixture(scope="session", params=["4", "3"], ids=["helm4", "helm3"])
def either_helm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm 4 and helm 3 in turn, for what depends on the program as much as on the chart."""
    major: str = request.param
    return _helm(major, tmp_path_factory)


def _helm(major: str, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    folder = ROOT / ".cache" / "helm" / major
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes, one download
        reason = _fetch(folder, major)
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(f"no helm {major}: {reason}")
        pytest.skip(f"no helm {major}: {reason}")
    home = str(tmp_path_factory.mktemp("helm"))
    own = {f"HELM_{name}_HOME": home for name in ("CACHE", "CONFIG", "DATA")}
    return Helm(folder / "helm", {"PATH": os.environ["PATH"], "HOME": home, **own})


def _fetch(folder: Path, major: str) -> str | None:
    """None once ``folder/helm`` is there, else why it is not."""
    script = ROOT / "tools" / "get_helm.sh"
    try:
        done = subprocess.run(
            [script, folder, major],
            env={**os.environ, "PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "the download took too long"
    lines = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else (lines[-1] if lines else f"status {done.returncode}")
