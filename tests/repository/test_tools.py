"""The scripts behind `make`: what they say when something is missing, and that the coverage gate closes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with nothing of the project but its scripts."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    return tmp_path


def run(checkout: Path, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(checkout)}
    command = [str(checkout / "tools" / script), *arguments]
    return subprocess.run(command, env=path | environment, capture_output=True, text=True, timeout=60, check=False)


def only_these(folder: Path, *tools: str) -> str:
    """A PATH on which nothing but these programs is found."""
    folder.mkdir()
    for tool in tools:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return str(folder)


BASICS = ("bash", "basename", "cat", "dirname", "flock", "id", "mkdir", "mktemp", "rm", "sed", "tail")


def test_an_old_python_is_named_with_the_one_that_is_needed(checkout: Path) -> None:
    old = checkout / "python-of-old"
    old.write_text('#!/bin/sh\ncase "$2" in *exit*) exit 1 ;; *) echo 3.9 ;; esac\n')
    old.chmod(0o755)
    done = run(checkout, "make_venv.sh", str(old))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Python 3.9, but 3.11 or newer is needed" in done.stderr


def test_a_missing_python_is_named(checkout: Path) -> None:
    done = run(checkout, "make_venv.sh", "python3.99")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "python3.99 is not on PATH" in done.stderr


def test_a_machine_without_apt_is_told_the_ways_out(checkout: Path) -> None:
    if Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists():
        pytest.skip("RabbitMQ is installed here")
    done = run(checkout, "get_rabbitmq.sh", PATH=only_these(checkout / "bin", *BASICS))
    assert done.returncode == 2
    assert "no apt-get" in done.stderr
    assert "CANCEL_WORKER_TEST_BROKER" in done.stderr


def test_a_given_broker_needs_no_rabbitmq(checkout: Path) -> None:
    given = {"CANCEL_WORKER_TEST_BROKER": "amqp://localhost/", "PATH": only_these(checkout / "bin", *BASICS)}
    done = run(checkout, "get_rabbitmq.sh", **given)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (checkout / ".cache" / "rabbitmq").exists()


def test_a_named_tree_without_rabbitmq_is_refused(checkout: Path) -> None:
    done = run(checkout, "get_rabbitmq.sh", CANCEL_WORKER_RABBITMQ=str(checkout))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert str(checkout) in done.stderr


def test_without_apt_promtool_is_missed_in_one_line(checkout: Path) -> None:
    done = run(checkout, "get_promtool.sh", PATH=only_these(checkout / "bin", *BASICS))
    assert done.returncode == 2
    assert "no apt-get" in done.stderr
    assert "the tests that need it are skipped" in done.stderr
    assert not list((checkout / ".cache").glob("promtool*")), "nothing half done is left"


def test_an_installed_promtool_is_left_to_be_used(checkout: Path) -> None:
    path = only_these(checkout / "bin", *BASICS)
    (checkout / "bin" / "promtool").write_text("#!/bin/sh\n")
    (checkout / "bin" / "promtool").chmod(0o755)
    done = run(checkout, "get_promtool.sh", PATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (checkout / ".cache" / "promtool").exists()


@pytest.mark.parametrize(
    ("covered", "of", "status"), [(90, 100, 0), (89, 100, 1), (0, 0, 1)], ids=["at the floor", "below", "not measured"]
)
def test_the_coverage_gate_counts_branches(tmp_path: Path, covered: int, of: int, status: int) -> None:
    def summary(branches: int, taken: int) -> dict[str, dict[str, int]]:
        return {"summary": {"num_branches": branches, "covered_branches": taken}}

    report = tmp_path / "coverage.json"
    files = {"worker/core/engine.py": summary(of, covered), "worker/core_beside.py": summary(1000, 1000)}
    report.write_text(json.dumps({"files": files}))
    gate = [sys.executable, str(ROOT / "tools/coverage_gate.py"), str(report), "--at-least", "90", "worker/core"]
    done = subprocess.run(gate, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status
    assert f"({covered} of {of})" in done.stdout
