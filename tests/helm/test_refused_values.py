"""What the chart refuses: values of a wrong name or type (by the schema), and combinations that can't work."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.helm.chart import CHART, LEAST, SECRETS, Helm, HelmError

pytestmark = pytest.mark.helm


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        result[key] = merged(below[key], value) if both else value
    return result


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"replicas": 2}, "replicas"),
        ({"image": {"registry": "docker.io"}}, "registry"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"replicaCount": -1}, "replicaCount"),
        ({"replicaCount": "two"}, "replicaCount"),
        ({"secrets": {"broker": {"password": "hunter2"}}}, "password"),
        ({"secrets": {"venue": {"existingSecret": "Not A Name"}}}, "existingSecret"),
        ({"config": {"ops": {"host": "0.0.0.0"}}}, "ops"),
        ({"config": {"brokers": {}}}, "brokers"),
        ({"config": {"broker": {"bad key": 1}}}, "broker"),
        ({"config": {"venue": {"sessions": 0}}}, "sessions"),
        ({"config": {"venue": {"sessions": None}}}, "sessions"),
        ({"config": {"shutdown": {"grace": "15"}}}, "grace"),
        ({"config": {"shutdown": {"grace": None}}}, "grace"),
        ({"ops": {"port": 0}}, "port"),
        ({"ops": {"port": 80}}, "port"),
        ({"podSecurityContext": {"runAsUser": 0}}, "runAsUser"),
        ({"podSecurityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
        ({"networkPolicy": {"brokerTo": []}}, "brokerTo"),
        ({"networkPolicy": {"venueTo": [{}]}}, "venueTo"),
        ({"keda": {"minReplicaCount": 0}}, "minReplicaCount"),
        ({"podLabels": {"app.kubernetes.io/name": "other"}}, "podLabels"),
        ({"podAnnotations": {"checksum/config": "same"}}, "podAnnotations"),
        ({"extraEnv": [{"name": "no-dash"}]}, "extraEnv"),
        ({"baseConfigFiles": ["/a:/b"]}, "baseConfigFiles"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_the_schema_refuses(either_helm: Helm, values: dict[str, Any], place: str) -> None:
    with pytest.raises(HelmError) as refused:
        either_helm.render(merged(dict(LEAST), values))
    assert "don't meet the specifications of the schema" in str(refused.value)
    assert place in str(refused.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"secrets": {"broker": {"existingSecret": ""}}}, "secrets.broker.existingSecret is required"),
        ({"secrets": {"venue": {"existingSecret": ""}}}, "secrets.venue.existingSecret is required"),
        ({"secrets": {"broker": {"tls": {"existingSecret": "t", "certKey": "c"}}}}, "certKey and keyKey are set toge"),
        ({"secrets": {"broker": {"tls": {"existingSecret": "t", "caKey": ""}}}}, "but no key of it"),
        ({"config": {"broker": {"url": "amqp://u:p@h/"}}}, "config.broker.url is not set here"),
        ({"config": {"broker": {"url_file": "/x"}}}, "config.broker.url_file is not set here"),
        ({"config": {"venue": {"api_key": "k"}}}, "config.venue.api_key is not set here"),
        ({"config": {"venue": {"api_secret": "s"}}}, "config.venue.api_secret is not set here"),
        ({"terminationGracePeriodSeconds": 29}, "29, less than config.shutdown.grace + 15 = 30"),
        (
            {"terminationGracePeriodSeconds": 60, "config": {"shutdown": {"grace": 45.5}}},
            "60, less than config.shutdown.grace + 15 = 61",
        ),
        ({"replicaCount": 5}, "12 sessions could be open during a roll-out"),
        ({"config": {"venue": {"sessions": 4}}}, "more than venueSessionLimit 10"),
        ({"keda": {"enabled": True, "existingSecret": "m", "maxReplicaCount": 5}}, "12 sessions could be open"),
        ({"keda": {"enabled": True}}, "keda.existingSecret is required"),
        ({"prometheusRule": {"enabled": True}}, "prometheusRule.enabled needs serviceMonitor.enabled"),
        (
            {"keda": {"enabled": True, "existingSecret": "m", "minReplicaCount": 3, "maxReplicaCount": 2}},
            "keda.minReplicaCount is more than keda.maxReplicaCount",
        ),
        (
            {"keda": {"enabled": True, "existingSecret": "m", "fallbackReplicas": 9}},
            "keda.fallbackReplicas is more than keda.maxReplicaCount",
        ),
        ({"extraEnv": [{"name": "CANCEL_WORKER__OPS__HOST", "value": "::"}]}, "extraEnv CANCEL_WORKER__OPS__HOST"),
        ({"extraEnv": [{"name": "CANCEL_WORKER__VENUE__API_KEY", "value": "k"}]}, "secrets in secrets"),
        ({"extraEnv": [{"name": "TZ", "value": "UTC"}, {"name": "TZ", "value": "CET"}]}, "extraEnv TZ stands twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_combination_that_cannot_work_is_refused(either_helm: Helm, values: dict[str, Any], told: str) -> None:
    with pytest.raises(HelmError) as refused:
        either_helm.render(merged(dict(LEAST), values))
    assert told in str(refused.value)


def test_all_that_is_wrong_is_told_at_once(helm: Helm) -> None:
    with pytest.raises(HelmError) as refused:
        helm.render({"terminationGracePeriodSeconds": 1})
    for told in ("secrets.broker.existingSecret", "secrets.venue.existingSecret", "terminationGracePeriodSeconds is 1"):
        assert told in str(refused.value)


@pytest.mark.parametrize("at_the_limit", [{"replicaCount": 4}, {"terminationGracePeriodSeconds": 30}])
def test_what_is_just_within_the_bounds_is_taken(helm: Helm, at_the_limit: dict[str, Any]) -> None:
    assert helm.render({**LEAST, **at_the_limit})


def test_a_refusal_shows_no_secret(helm: Helm) -> None:
    with pytest.raises(HelmError) as refused:
        helm.render({**LEAST, "config": {"broker": {"url": "amqp://u:hunter2@h/"}, "venue": {"api_secret": "hunter2"}}})
    assert "hunter2" not in str(refused.value)


def test_the_chart_can_be_a_part_of_another(helm: Helm) -> None:
    assert helm.render({"secrets": SECRETS, "global": {"imageRegistry": "registry.example.com"}})


def test_schema_and_values_name_the_same_keys() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(rule: dict[str, Any], value: object, path: str) -> None:
        if "properties" in rule and rule.get("additionalProperties") is False and isinstance(value, dict):
            optional = {"global"} if not path else set()
            assert rule["properties"].keys() - optional == value.keys(), path
            for key, inner in value.items():
                compare(_followed(schema, rule["properties"][key]), inner, f"{path}.{key}")

    compare(schema, values, "")


def _followed(schema: dict[str, Any], rule: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["definitions"][rule["$ref"].rpartition("/")[2]] if "$ref" in rule else rule
    return found


def test_every_object_of_the_schema_is_closed_or_says_what_it_takes() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(rule: object) -> None:
        if isinstance(rule, dict):
            if "properties" in rule and "allOf" not in rule:
                assert rule.get("additionalProperties") is False, rule
            for inner in rule.values():
                walk(inner)
        elif isinstance(rule, list):
            for inner in rule:
                walk(inner)

    walk({key: value for key, value in schema.items() if key != "properties"})
    for rule in schema["properties"].values():
        walk(rule)
    assert schema["additionalProperties"] is False
