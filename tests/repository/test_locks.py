"""What the lock files promise: every file by its hash, no package server named, one version of each package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted(path for pattern in ("requirements*.lock", "**/package-lock.json") for path in ROOT.glob(pattern))
REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^ ;\\]+)", re.MULTILINE)


def versions_in(lock: Path) -> dict[str, str]:
    return dict(REQUIREMENT.findall(lock.read_text()))


def test_there_is_a_lock_for_each_purpose() -> None:
    names = {path.name for path in LOCKS}
    assert {"requirements.lock", "requirements-dev.lock", "requirements-build.lock"} <= names


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_names_no_package_server(lock: Path) -> None:
    named = re.findall(
        r"[a-z+]+://[^\s\"']+|--(?:index-url|extra-index-url|find-links|trusted-host)\b", lock.read_text()
    )
    assert named == []


@pytest.mark.parametrize("lock", [path for path in LOCKS if path.suffix == ".lock"], ids=lambda path: path.name)
def test_every_locked_package_has_a_hash(lock: Path) -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) == len(versions_in(lock)) > 0
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-build.lock"])
def test_tests_run_with_the_versions_that_are_shipped(name: str) -> None:
    tested = versions_in(ROOT / "requirements-dev.lock")
    assert {package: tested.get(package) for package in versions_in(ROOT / name)} == versions_in(ROOT / name)
