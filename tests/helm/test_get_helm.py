"""tools/get_helm.sh: what it does without a download."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.helm.chart import ROOT

SCRIPT = ROOT / "tools" / "get_helm.sh"


@pytest.mark.parametrize("arguments", [[], ["{}", "2"], ["{}", "4", "more"]])
def test_wrong_usage_fetches_nothing(arguments: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "helm"
    given = [argument.format(folder) for argument in arguments]
    done = subprocess.run([SCRIPT, *given], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize(("there", "status"), [("v4.3.1+gabcdef0", 0), ("v4.3.0+gabcdef0", 1)])
def test_only_another_version_is_fetched_anew(there: str, status: int, tmp_path: Path) -> None:
    helm = tmp_path / "helm"
    helm.write_text(f"#!/bin/sh\necho {there}\n")
    helm.chmod(0o755)
    # An index without anything in it: a download is sure to fail.
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}
    done = subprocess.run(
        [SCRIPT, tmp_path], env=environment, capture_output=True, text=True, timeout=30, check=False
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["helm"], "nothing half done is left"
    if status == 1:
        assert "could not download" in done.stderr
