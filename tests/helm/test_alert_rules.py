"""The chart's alert rules: readable by Prometheus, and firing when they should."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.helm.chart import LEAST, Helm, Manifest, one

pytestmark = pytest.mark.helm

SERIES = '{namespace="orders", service="trading-cancel-worker-ops"%s}'
WITH_RULES = {**LEAST, "serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}


@pytest.fixture
def groups(helm: Helm) -> dict[str, Any]:
    """What Prometheus reads: the PrometheusRule's spec."""
    manifest: Manifest = one(helm.render(WITH_RULES), "PrometheusRule")
    spec: dict[str, Any] = manifest["spec"]
    return spec


def rules(groups: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule for group in groups["groups"] for rule in group["rules"]]


def test_every_alert_has_a_readable_expression_and_says_what_it_means(groups: dict[str, Any]) -> None:
    assert len({rule["alert"] for rule in rules(groups)}) == len(rules(groups)) == 5
    for rule in rules(groups):
        promql_parser.parse(rule["expr"])
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_every_alert_is_about_this_release_alone(groups: dict[str, Any]) -> None:
    for rule in rules(groups):
        assert 'namespace="orders", service="trading-cancel-worker-ops"' in rule["expr"]


def test_every_alert_reads_series_that_the_worker_has(groups: dict[str, Any]) -> None:
    from worker.core.stats import Stats
    from worker.ops.metrics import WorkerCollector

    samples = [
        sample
        for family in WorkerCollector(Stats(), "0", "0", log_dropped=lambda: 0).collect()
        for sample in family.samples
    ]
    scraped = {"namespace": "orders", "service": "trading-cancel-worker-ops"}
    for rule in rules(groups):
        series = re.findall(r"(cancel_worker_\w+)\{([^}]*)\}", rule["expr"])
        assert series
        for name, matchers in series:
            wanted = dict(re.findall(r'(\w+)="([^"]*)"', matchers)).items()
            there = [{**sample.labels, **scraped} for sample in samples if sample.name == name]
            assert any(wanted <= labels.items() for labels in there), rule["alert"]
            grouped = re.findall(r"by \((\w+)\)", rule["expr"])
            assert all(set(grouped) <= labels.keys() for labels in there)


def test_rules_of_ones_own_are_added(helm: Helm) -> None:
    own = {"alert": "Mine", "expr": "vector(1) > 0"}
    values = {**WITH_RULES, "prometheusRule": {"enabled": True, "extraRules": [own], "forSeconds": 90}}
    found = rules(one(helm.render(values), "PrometheusRule")["spec"])
    assert found[-1] == own
    assert found[0]["for"] == "90s"


# One sample a minute; when the alert must be quiet still, and when it must fire.
FIRING = [
    ("CancelWorkerAbsent", {}, {}, "30s", "2m"),
    ("CancelWorkerNoSession", {"cancel_worker_sessions_ready": "0x20"}, {}, "30s", "2m"),
    ("CancelWorkerLinkDown", {'cancel_worker_link_connected,link="consume_kill"': "0x20"}, {"link": "consume_kill"}, "30s", "2m"),
    ("CancelWorkerKillIncomplete", {'cancel_worker_finals_total,outcome="mass_incomplete"': "0x4 1+0x16"}, {}, "4m", "6m"),
    ("CancelWorkerUnresolved", {'cancel_worker_finals_total,outcome="unresolved"': "0x4 1+0x16"}, {}, "4m", "6m"),
]  # fmt: skip


@pytest.mark.parametrize(("alert", "series", "labels", "quiet", "fires"), FIRING, ids=[case[0] for case in FIRING])
def test_an_alert_fires_when_it_should_and_not_before(
    promtool: str,
    groups: dict[str, Any],
    alert: str,
    series: dict[str, str],
    labels: dict[str, str],
    quiet: str,
    fires: str,
    tmp_path: Path,
) -> None:
    (rule,) = [rule for rule in rules(groups) if rule["alert"] == alert]
    annotations = {
        key: re.sub(r"\{\{ \$labels\.link \}\}", labels.get("link", ""), text)
        for key, text in rule["annotations"].items()
    }
    if alert == "CancelWorkerAbsent":
        labels = {"namespace": "orders", "service": "trading-cancel-worker-ops"}
    inputs = [
        {"series": name + SERIES % (f", {label}" if label else ""), "values": values}
        for (name, _, label), values in ((key.partition(","), values) for key, values in series.items())
    ]
    firing = {"exp_labels": {"severity": rule["labels"]["severity"], **labels}, "exp_annotations": annotations}
    case = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "1m",
                "input_series": inputs,
                "alert_rule_test": [
                    {"eval_time": quiet, "alertname": alert, "exp_alerts": []},
                    {"eval_time": fires, "alertname": alert, "exp_alerts": [firing]},
                ],
            }
        ],
    }
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups))
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
    done = subprocess.run(
        [promtool, "test", "rules", "case.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
