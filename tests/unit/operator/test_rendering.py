"""The bodies that the operator makes, as golden values."""

import json

from shardwright_api.resources import PodTemplate, ShardRange, decode
from shardwright_api.sharding import Range
from shardwright_operator import render
from shardwright_operator.revision import merge_diff
from shardwright_operator.sums import live_spec
from unit.operator import builders


def rendered(**pod):
    of = builders.gateway(pod=PodTemplate(**pod))
    return render.pod(builders.wanted(of), builders.shard_range(), 3)


def test_a_pod_is_owned_labelled_and_named_for_its_incarnation():
    meta = rendered()["metadata"]
    assert meta == {
        "name": "mybot-4-0-1-range-ui-3",
        "namespace": "bots",
        "labels": {
            "app.kubernetes.io/managed-by": "shardwright",
            "shardwright.dev/gateway": "mybot",
            "shardwright.dev/bot": builders.BOT,
            "shardwright.dev/range": "mybot-4-0-1",
        },
        "annotations": {
            "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "state",
            "shardwright.dev/revision": builders.REVISION,
            "shardwright.dev/incarnation": "3",
            "shardwright.dev/secret-version": "100",
        },
        "ownerReferences": [
            {
                "apiVersion": "shardwright.dev/v1alpha1",
                "kind": "ShardRange",
                "name": "mybot-4-0-1",
                "uid": "range-uid-0",
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }


def test_a_pod_meets_the_restricted_standard_and_drains_for_a_minute():
    spec = rendered()["spec"]
    (container,) = spec["containers"]
    assert spec["terminationGracePeriodSeconds"] == 60
    assert spec["restartPolicy"] == "Always"
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == "shardwright-mybot"
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [(one["key"], one["tolerationSeconds"]) for one in spec["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 30),
        ("node.kubernetes.io/unreachable", 30),
    ]
    assert spec["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway"


def test_the_container_knows_its_range_and_itself_and_never_the_token():
    (container,) = rendered()["spec"]["containers"]
    assert container["name"] == "shard"
    assert container["args"] == ["--namespace", "bots", "--range", "mybot-4-0-1"]
    assert [(one["name"], one["valueFrom"]["fieldRef"]["fieldPath"]) for one in container["env"]] == [
        ("SHARDWRIGHT_POD_NAME", "metadata.name"),
        ("SHARDWRIGHT_POD_UID", "metadata.uid"),
    ]
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["readinessProbe"]["periodSeconds"] == 2
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert "lifecycle" not in container


def test_volumes_hold_the_token_the_state_and_access_to_the_api():
    pod = rendered()["spec"]
    mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    assert mounts == {
        "token": "/var/run/secrets/shardwright.dev/token",
        "state": "/var/lib/shardwright",
        "api-access": "/var/run/secrets/kubernetes.io/serviceaccount",
    }
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert volumes["token"]["secret"] == {
        "secretName": "mybot-token",
        "defaultMode": 0o440,
        "items": [{"key": "token", "path": "token"}],
    }
    assert volumes["state"]["emptyDir"] == {}
    assert volumes["api-access"]["projected"]["sources"][0] == {
        "serviceAccountToken": {"path": "token", "expirationSeconds": 3600}
    }


def test_what_the_user_says_of_the_pods_is_laid_over():
    pod = rendered(
        image_pull_policy="Never",
        image_pull_secrets=({"name": "pull"},),
        resources={"requests": {"cpu": "1"}},
        labels={"team": "x", "shardwright.dev/range": "not mine"},
        annotations={"note": "y"},
        env=({"name": "A", "value": "b"},),
        node_selector={"disk": "ssd"},
        tolerations=({"key": "mine"},),
        affinity={"podAffinity": {}},
        topology_spread_constraints=(),
        priority_class_name="high",
        security_context={"runAsUser": 7},
    )
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert pod["metadata"]["labels"]["team"] == "x"
    assert pod["metadata"]["labels"]["shardwright.dev/range"] == "mybot-4-0-1"
    assert pod["metadata"]["annotations"]["note"] == "y"
    assert (container["imagePullPolicy"], container["resources"]) == ("Never", {"requests": {"cpu": "1"}})
    assert container["env"][0] == {"name": "A", "value": "b"}
    assert (spec["imagePullSecrets"], spec["nodeSelector"]) == ([{"name": "pull"}], {"disk": "ssd"})
    assert (spec["affinity"], spec["priorityClassName"]) == ({"podAffinity": {}}, "high")
    assert spec["tolerations"][-1] == {"key": "mine"}
    assert spec["topologySpreadConstraints"] == []
    assert spec["securityContext"]["runAsUser"] == 7
    assert spec["securityContext"]["runAsNonRoot"] is True


def test_rights_are_by_name_without_create_and_list():
    role = render.role(builders.GATEWAY_OBJECT, ranges=["r0", "r1"], leases=["l0"])
    assert role["rules"] == [
        {"apiGroups": ["shardwright.dev"], "resources": ["discordgateways"], "resourceNames": ["mybot"], "verbs": ["get"]},
        {"apiGroups": ["shardwright.dev"], "resources": ["shardranges"], "resourceNames": ["r0", "r1"], "verbs": ["get", "watch"]},
        {"apiGroups": ["shardwright.dev"], "resources": ["shardranges/status"], "resourceNames": ["r0", "r1"], "verbs": ["patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["l0"], "verbs": ["get", "watch", "update"]},
    ]  # fmt: skip


def test_the_binding_binds_the_account_to_its_role():
    binding = render.role_binding(builders.GATEWAY_OBJECT)
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "shardwright-mybot"}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "shardwright-mybot", "namespace": "bots"}]


def test_the_disruption_budget_is_an_integer():
    spec = render.disruption_budget(builders.GATEWAY_OBJECT, min_available=7)["spec"]
    assert spec["minAvailable"] == 7
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_a_lease_has_no_owner():
    assert render.lease("bots", "42", 3) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "42-identify-3",
            "namespace": "bots",
            "labels": {"app.kubernetes.io/managed-by": "shardwright", "shardwright.dev/bot": "42"},
        },
        "spec": {},
    }


def test_a_shard_range_reads_back_as_what_was_rendered():
    config = render.shard_config(builders.GATEWAY_OBJECT, gateway_url="wss://x", ranges=2)
    body = render.shard_range(
        builders.GATEWAY_OBJECT,
        Range(0, 1, 4),
        bot_id=builders.BOT,
        max_concurrency=16,
        config=config,
        revision="r",
        hold=True,
    )
    raw = json.dumps(body).encode()
    spec = decode(ShardRange, raw).spec
    assert (spec.first, spec.last, spec.total, spec.config, spec.hold) == (0, 1, 4, config, True)
    assert live_spec(spec).gateway_url == "wss://x"
    assert body["metadata"]["ownerReferences"][0]["controller"] is True


def test_heartbeats_are_rarer_above_two_hundred_ranges():
    assert (render.heartbeat_seconds(200), render.heartbeat_seconds(201)) == (5.0, 10.0)


def test_a_merge_patch_names_only_what_changes():
    old = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1], "g": 5}
    new = {"a": 1, "b": {"c": 3}, "e": [1, 2], "f": {"x": 1}}
    assert merge_diff(old, new) == {"b": {"c": 3, "d": None}, "e": [1, 2], "f": {"x": 1}, "g": None}
    assert merge_diff(old, old) == {}
