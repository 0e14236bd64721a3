"""What the chart renders: valid for Kubernetes, secure by default, and a configuration that the worker takes."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.helm.chart import (
    CHART,
    CI_VALUES,
    LEAST,
    ROOT,
    SECRETS,
    Helm,
    Manifest,
    config_toml,
    container,
    of,
    one,
    pod,
    tree,
)

pytestmark = pytest.mark.helm

every_values_file = pytest.mark.parametrize("file", CI_VALUES, ids=lambda file: file.stem)
CUSTOM_KINDS = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"}
SECRETS_FOLDER = "/run/secrets/cancel-worker"


def test_the_values_files_cover_the_chart() -> None:
    assert {file.stem for file in CI_VALUES} == {"default-values", "minimal-values", "full-values", "keda-values"}


@every_values_file
def test_lints_without_a_warning(either_helm: Helm, file: Path) -> None:
    told = either_helm.run("lint", "--strict", str(CHART), "--values", str(file))
    assert "0 chart(s) failed" in told
    assert "[WARNING]" not in told


def test_lints_with_its_own_values(either_helm: Helm) -> None:
    assert "0 chart(s) failed" in either_helm.run("lint", "--strict", str(CHART))


@every_values_file
def test_every_helm_renders_the_same(helm: Helm, either_helm: Helm, file: Path) -> None:
    def by_name(manifest: Manifest) -> tuple[str, str]:
        return manifest["kind"], manifest["metadata"]["name"]

    assert sorted(either_helm.render(file=file), key=by_name) == sorted(helm.render(file=file), key=by_name)


@every_values_file
@pytest.mark.parametrize("version", ["1.27", "1.37"])
def test_every_object_is_valid_for_kubernetes(helm: Helm, file: Path, version: str) -> None:
    manifests = helm.render(file=file)
    assert manifests
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM_KINDS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_only_what_is_asked_for_is_rendered(helm: Helm) -> None:
    always = {"Deployment", "ConfigMap", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget"}
    assert Counter(manifest["kind"] for manifest in helm.render(LEAST)) == Counter(always)
    minimal = {manifest["kind"] for manifest in helm.render(file=CHART / "ci" / "minimal-values.yaml")}
    assert minimal == {"Deployment", "ConfigMap"}


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({"service": {"enabled": True}}, {"Service"}),
        ({"serviceMonitor": {"enabled": True}}, {"Service", "ServiceMonitor"}),
        (
            {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
            {"Service", "ServiceMonitor", "PrometheusRule"},
        ),
        ({"keda": {"enabled": True, "existingSecret": "management"}}, {"ScaledObject", "TriggerAuthentication"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_option_adds_its_objects_and_no_others(helm: Helm, values: dict[str, Any], kinds: set[str]) -> None:
    without = {manifest["kind"] for manifest in helm.render(LEAST)}
    assert {manifest["kind"] for manifest in helm.render({**LEAST, **values})} - without == kinds


@every_values_file
def test_the_pod_is_locked_down(helm: Helm, file: Path) -> None:
    manifests = helm.render(file=file)
    spec, only = pod(manifests), container(manifests)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
    assert all("hostPath" not in volume for volume in spec["volumes"])
    for account in of(manifests, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_the_pod_runs_under_the_images_own_ids(helm: Helm) -> None:
    context = pod(helm.render(LEAST))["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (10001, 10001, 10001)


def test_the_ids_can_be_left_to_the_cluster(helm: Helm) -> None:
    context = pod(helm.render(file=CHART / "ci" / "minimal-values.yaml"))["securityContext"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()


@every_values_file
def test_resources_are_bounded(helm: Helm, file: Path) -> None:
    resources = container(helm.render(file=file))["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert resources["requests"]["cpu"]
    assert "cpu" not in resources["limits"], "throttling would delay cancels"


@every_values_file
def test_names_of_environment_variables_are_unique(helm: Helm, file: Path) -> None:
    names = Counter(variable["name"] for variable in container(helm.render(file=file))["env"])
    assert names["CANCEL_WORKER_CONFIG"] == 1
    assert names["CANCEL_WORKER__OPS__HOST"] == 1
    assert max(names.values()) == 1


@every_values_file
def test_mount_points_and_volumes_fit(helm: Helm, file: Path) -> None:
    manifests = helm.render(file=file)
    mounts = container(manifests)["volumeMounts"]
    volumes = [volume["name"] for volume in pod(manifests)["volumes"]]
    assert sorted(mount["name"] for mount in mounts) == sorted(volumes)
    assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
    assert all("subPath" not in mount for mount in mounts), "a subPath never sees a rotated Secret"


@every_values_file
def test_secrets_are_files_and_nothing_else(helm: Helm, file: Path) -> None:
    manifests = helm.render(file=file)
    assert not of(manifests, "Secret")
    assert all("secretKeyRef" not in variable.get("valueFrom", {}) for variable in container(manifests)["env"])
    assert "envFrom" not in container(manifests)
    (volume,) = [volume for volume in pod(manifests)["volumes"] if volume["name"] == "secrets"]
    assert volume["projected"]["defaultMode"] == 0o440
    (mount,) = [mount for mount in container(manifests)["volumeMounts"] if mount["name"] == "secrets"]
    assert mount == {"name": "secrets", "mountPath": SECRETS_FOLDER, "readOnly": True}
    mounted = {
        f"{SECRETS_FOLDER}/{item['path']}"
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    named = {
        value
        for _, value in tree(tomllib.loads(config_toml(manifests)))
        if isinstance(value, str) and value.startswith(SECRETS_FOLDER)
    }
    assert named == mounted, "every file the configuration names is mounted, and no other"


def test_the_secrets_come_from_the_named_keys(helm: Helm) -> None:
    manifests = helm.render(file=CHART / "ci" / "full-values.yaml")
    (volume,) = [volume for volume in pod(manifests)["volumes"] if volume["name"] == "secrets"]
    found = {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert found == {
        "broker-url": ("broker", "amqps-url"),
        "broker-ca.pem": ("broker-tls", "ca.crt"),
        "broker-cert.pem": ("broker-tls", "tls.crt"),
        "broker-key.pem": ("broker-tls", "tls.key"),
        "venue-api-key": ("prime", "key"),
        "venue-api-secret": ("prime", "secret"),
    }


@every_values_file
def test_the_kubelet_waits_longer_than_the_worker(helm: Helm, file: Path) -> None:
    manifests = helm.render(file=file)
    grace = tomllib.loads(config_toml(manifests))["shutdown"]["grace"]
    assert pod(manifests)["terminationGracePeriodSeconds"] >= grace + 15


@pytest.mark.parametrize(("grace", "seconds"), [(15, 30), (0, 15), (22.5, 38), (120, 135)])
def test_the_termination_grace_follows_the_shutdown_grace(helm: Helm, grace: float, seconds: int) -> None:
    manifests = helm.render({**LEAST, "config": {"shutdown": {"grace": grace}}})
    assert pod(manifests)["terminationGracePeriodSeconds"] == seconds


@every_values_file
def test_probes_ask_the_right_questions(helm: Helm, file: Path) -> None:
    only = container(helm.render(file=file))
    asked = {name: only[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert asked == {
        "startupProbe": {"path": "/livez", "port": "ops"},
        "livenessProbe": {"path": "/livez", "port": "ops"},
        "readinessProbe": {"path": "/readyz", "port": "ops"},
    }


@every_values_file
def test_one_port_for_the_operations_endpoint(helm: Helm, file: Path) -> None:
    manifests = helm.render(file=file)
    only = container(manifests)
    ops = tomllib.loads(config_toml(manifests))["ops"]
    assert only["ports"] == [{"name": "ops", "containerPort": ops["port"], "protocol": "TCP"}]
    assert "host" not in ops, "the address is set by the environment, in a pod alone"
    assert {"name": "CANCEL_WORKER__OPS__HOST", "value": "0.0.0.0"} in only["env"]
    for service in of(manifests, "Service"):
        assert [port["port"] for port in service["spec"]["ports"]] == [ops["port"]]


def test_a_roll_out_never_takes_a_pod_away_first(helm: Helm) -> None:
    spec = one(helm.render(LEAST), "Deployment")["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert spec["minReadySeconds"] > 0
    assert spec["replicas"] == 2


def test_keda_owns_the_number_of_pods(helm: Helm) -> None:
    manifests = helm.render(file=CHART / "ci" / "keda-values.yaml")
    deployment, scaled = one(manifests, "Deployment"), one(manifests, "ScaledObject")
    assert "replicas" not in deployment["spec"]
    assert scaled["spec"]["scaleTargetRef"] == {"name": deployment["metadata"]["name"]}
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]) == (2, 6)
    assert [trigger["metadata"]["queueName"] for trigger in scaled["spec"]["triggers"]] == [
        "cancel.commands",
        "cancel.kill",
    ]
    authentication = one(manifests, "TriggerAuthentication")
    for trigger in scaled["spec"]["triggers"]:
        assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
        assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA takes strings only"
        assert trigger["metadata"]["protocol"] == "http", "over AMQP a prefetch hides what is unacked"
    referred = authentication["spec"]["secretTargetRef"]
    assert {reference["parameter"] for reference in referred} == {"host", "username", "password"}
    assert {reference["name"] for reference in referred} == {"rabbitmq-management"}


def test_a_worker_that_is_not_ready_is_still_scraped(helm: Helm) -> None:
    service = one(helm.render({**LEAST, "serviceMonitor": {"enabled": True}}), "Service")["spec"]
    assert service["publishNotReadyAddresses"] is True
    assert service["clusterIP"] == "None"


def test_the_network_is_closed_but_for_what_is_needed(helm: Helm) -> None:
    policy = one(helm.render(LEAST), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == []
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [[53, 53], [5671, 5672], [443]]
    assert all(rule["to"] for rule in policy["egress"]), "an empty `to` would mean anywhere"
    (venue,) = policy["egress"][2]["to"]
    assert "169.254.0.0/16" in venue["ipBlock"]["except"], "the cloud's metadata service is not the venue"


def test_only_the_named_peers_reach_the_operations_endpoint(helm: Helm) -> None:
    policy = one(helm.render(file=CHART / "ci" / "full-values.yaml"), "NetworkPolicy")["spec"]
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "ops"}]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


@every_values_file
def test_every_object_has_the_recommended_labels(helm: Helm, file: Path) -> None:
    manifests = helm.render(file=file)
    recommended = {"name", "instance", "version", "component", "part-of", "managed-by"}
    wanted = {f"app.kubernetes.io/{name}" for name in recommended} | {"helm.sh/chart"}
    template = one(manifests, "Deployment")["spec"]["template"]
    for labels in (manifest["metadata"]["labels"] for manifest in [*manifests, template]):
        assert wanted <= labels.keys()
        assert all(isinstance(value, str) for value in labels.values())


@every_values_file
def test_selectors_find_the_pod_and_outlive_an_upgrade(helm: Helm, file: Path) -> None:
    manifests = helm.render(file=file)
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for selector in _selectors(manifests):
        assert selector.items() <= labels.items()
        assert selector.keys() == {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}


def _selectors(manifests: list[Manifest]) -> list[dict[str, str]]:
    found = [one(manifests, "Deployment")["spec"]["selector"]["matchLabels"]]
    found += [policy["spec"]["podSelector"]["matchLabels"] for policy in of(manifests, "NetworkPolicy")]
    found += [budget["spec"]["selector"]["matchLabels"] for budget in of(manifests, "PodDisruptionBudget")]
    found += [service["spec"]["selector"] for service in of(manifests, "Service")]
    found += [monitor["spec"]["selector"]["matchLabels"] for monitor in of(manifests, "ServiceMonitor")]
    return found


@pytest.mark.parametrize("release", ["1234", "true", "a" * 53])
def test_any_name_of_a_release_works(helm: Helm, release: str) -> None:
    manifests = helm.render({**LEAST, "service": {"enabled": True}}, release=release)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, "1.31", strict=True)
        assert len(manifest["metadata"]["name"]) <= 63
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == release


def test_a_change_of_configuration_rolls_the_pods(helm: Helm) -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = one(helm.render({**LEAST, **values}), "Deployment")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum({}) != checksum({"config": {"venue": {"max_batch": 10}}})
    assert checksum({}) == checksum({"minReadySeconds": 11})


def test_a_digest_wins_over_the_tag(helm: Helm) -> None:
    digest = "sha256:" + "ab" * 32
    images = [
        container(helm.render({**LEAST, "image": image}))["image"]
        for image in ({}, {"tag": "1.2.3"}, {"tag": "1.2.3", "digest": digest})
    ]
    assert images == ["cancel-worker:0.1.0", "cancel-worker:1.2.3", f"cancel-worker@{digest}"]


def test_values_arrive_in_the_configuration_with_their_types(helm: Helm) -> None:
    config: dict[str, dict[str, Any]] = {
        "broker": {"prefetch": 1000, "audit_max_length_bytes": 20_000_000_000, "declare": False, "heartbeat": None},
        "kill": {"rate_limit": 0.5, "customer_users": ['qu"ote', "back\\slash", "<ü>", "a\nb"]},
        "venue": {"refusal_codes": [1, 2], "extra_stream_fields": {"User": "desk", "Levels": [1, 2]}},
        "authorization": {"kill_users": []},
    }
    text = config_toml(helm.render({**LEAST, "config": config}))
    read = tomllib.loads(text)
    assert read["broker"].pop("url_file") == f"{SECRETS_FOLDER}/broker-url"
    assert read["broker"] == {key: value for key, value in config["broker"].items() if value is not None}
    assert read["kill"] == config["kill"]
    assert read["venue"]["refusal_codes"] == [1, 2]
    assert type(read["venue"]["refusal_codes"][0]) is int
    assert read["venue"]["extra_stream_fields"] == {"User": "desk", "Levels": [1, 2]}
    assert read["authorization"] == {"kill_users": []}, "an empty list means nobody, so it must not get lost"
    assert type(read["broker"]["audit_max_length_bytes"]) is int


def test_the_sections_are_the_workers_own() -> None:
    import msgspec

    from worker.config import Config

    schema = json.loads((CHART / "values.schema.json").read_text())
    sections = set(schema["properties"]["config"]["properties"])
    assert sections == {section.name for section in msgspec.structs.fields(Config)} - {"ops"}


@every_values_file
def test_the_worker_takes_the_configuration(helm: Helm, file: Path, tmp_path: Path) -> None:
    from worker.config import load

    manifests = helm.render(file=file)
    environment = {variable["name"]: variable.get("value", "") for variable in container(manifests)["env"]}
    *base, own = environment.pop("CANCEL_WORKER_CONFIG").split(":")
    (mount,) = [mount for mount in container(manifests)["volumeMounts"] if mount["name"] == "config"]
    assert own == f"{mount['mountPath']}/config.toml"
    rendered = tmp_path / "config.toml"
    rendered.write_text(config_toml(manifests))
    files = [ROOT / "config" / Path(path).name for path in base]
    config = load([*files, rendered], environment)
    assert config.broker.url_file == f"{SECRETS_FOLDER}/broker-url"
    assert config.venue.api_key_file == f"{SECRETS_FOLDER}/venue-api-key"
    assert config.venue.api_secret_file == f"{SECRETS_FOLDER}/venue-api-secret"
    assert config.ops.host == "0.0.0.0"
    assert pod(manifests)["terminationGracePeriodSeconds"] >= config.shutdown.grace + 15


def test_the_notes_say_what_to_do_next(helm: Helm) -> None:
    told = helm.run(
        "install", "trading", str(CHART), "--dry-run=client", "--namespace", "orders", "--values", "-",
        stdin=json.dumps({"secrets": SECRETS}),
    )  # fmt: skip
    notes = told.partition("NOTES:")[2]
    assert "rollout status deployment/trading-cancel-worker" in notes
    assert "nothing but the kubelet can reach /metrics" in notes


def test_the_chart_is_of_the_workers_version() -> None:
    from worker import __version__

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
