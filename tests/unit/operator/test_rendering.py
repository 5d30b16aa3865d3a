"""The bodies that the operator makes, as golden values."""

import json

import msgspec

from shardwright_api.resources import Buffer, PodTemplate, ShardConfig, ShardRange, VolumeClaim, decode
from shardwright_api.sharding import Range
from shardwright_operator import render
from shardwright_operator.revision import merge_diff
from shardwright_operator.sums import ANNOTATION_TEMPLATE, identity, live_spec
from unit.operator import builders

MI = 1024 * 1024


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
            "shardwright.dev/buffer-version": render.buffer_version(builders.config()),
            "shardwright.dev/identity": identity(builders.config()),
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
    *fields, given = container["env"]
    assert [(one["name"], one["valueFrom"]["fieldRef"]["fieldPath"]) for one in fields] == [
        ("SHARDWRIGHT_POD_NAME", "metadata.name"),
        ("SHARDWRIGHT_POD_UID", "metadata.uid"),
    ]
    assert given["name"] == "SHARDWRIGHT_CONFIG"
    assert msgspec.json.decode(given["value"], type=ShardConfig) == builders.config()
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
    assert volumes["state"]["emptyDir"] == {"sizeLimit": str(16 * MI)}
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
        template="{}",
        restart_at="today",
        hold=True,
    )
    annotations = {"shardwright.dev/restart-at": "today", "shardwright.dev/pod-template": "{}"}
    assert body["metadata"]["annotations"] == annotations
    raw = json.dumps(body).encode()
    spec = decode(ShardRange, raw).spec
    assert (spec.first, spec.last, spec.total, spec.config, spec.hold) == (0, 1, 4, config, True)
    assert live_spec(spec).gateway_url == "wss://x"
    assert body["metadata"]["ownerReferences"][0]["controller"] is True


def test_the_buffer_reaches_the_pods_in_bytes():
    spec = Buffer(memory="1.5Mi", disk="2G")
    config = render.shard_config(builders.gateway(buffer=spec), gateway_url="wss://x", ranges=2)
    assert (config.buffer_memory, config.buffer_disk) == (1572864, 2_000_000_000)
    of = builders.shard_range(config=config)
    volumes = {one["name"]: one for one in render.pod(builders.wanted(), of, 1)["spec"]["volumes"]}
    assert volumes["state"]["emptyDir"] == {"sizeLimit": "2000000000"}


def test_without_a_spool_the_checkpoint_has_a_small_volume():
    config = render.shard_config(builders.gateway(buffer=Buffer(disk="0")), gateway_url="wss://x", ranges=2)
    assert config.buffer_disk == 0
    of = builders.shard_range(config=config)
    volumes = {one["name"]: one for one in render.pod(builders.wanted(), of, 1)["spec"]["volumes"]}
    assert volumes["state"]["emptyDir"] == {"sizeLimit": str(16 * MI)}


def test_a_claim_belongs_to_its_range_and_is_mounted_instead():
    gateway = builders.gateway(buffer=Buffer(volume_claim=VolumeClaim("5Gi", "fast")))
    assert render.shard_config(gateway, gateway_url="wss://x", ranges=1).buffer_disk == 5 * 1024 * MI
    of, wanted = builders.shard_range(), builders.wanted(gateway)
    claim = render.claim(wanted, of)
    assert claim["metadata"]["name"] == "mybot-4-0-1-spool"
    assert claim["metadata"]["ownerReferences"][0]["uid"] == of.metadata.uid
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "5Gi"}},
        "storageClassName": "fast",
    }
    spec = render.pod(wanted, of, 1)["spec"]
    volumes = {one["name"]: one for one in spec["volumes"]}
    assert volumes["state"] == {"name": "state", "persistentVolumeClaim": {"claimName": "mybot-4-0-1-spool"}}
    (together,) = spec["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert together["podAffinityTerm"]["labelSelector"] == {"matchLabels": {"shardwright.dev/range": "mybot-4-0-1"}}
    assert spec["topologySpreadConstraints"] == [], "which would pull them apart"
    assert render.claim(builders.wanted(), of) is None


def test_a_pod_of_a_range_that_was_not_rolled_yet_is_made_as_its_revision_says():
    old = builders.gateway(pod=PodTemplate(labels={"team": "a"}))
    template = msgspec.json.encode(render.template_of(old, "shard:1")).decode()
    of = builders.shard_range(revision="old", annotations={ANNOTATION_TEMPLATE: template})
    bad = builders.wanted(builders.gateway(pod=PodTemplate(image="bad:2", node_selector={"no": "such"})), image="bad:2")
    made = render.pod(bad, of, 1)
    assert made["spec"]["containers"][0]["image"] == "shard:1"
    assert "nodeSelector" not in made["spec"]
    assert made["metadata"]["labels"]["team"] == "a"
    rolled = render.pod(bad, builders.with_spec(of, revision=bad.revision), 1)
    assert rolled["spec"]["containers"][0]["image"] == "bad:2"
    unknown = builders.shard_range(revision="old")
    assert render.pod(bad, unknown, 1)["spec"]["containers"][0]["image"] == "bad:2", "made by an older operator"


def test_the_users_affinity_stands_beside_what_a_claim_needs():
    def affinity(**given):
        buffer = Buffer(volume_claim=VolumeClaim("5Gi"))
        wanted = builders.wanted(builders.gateway(buffer=buffer, pod=PodTemplate(affinity=given)))
        return render.pod(wanted, builders.shard_range(), 1)["spec"]["affinity"]

    assert set(affinity(nodeAffinity={})) == {"nodeAffinity", "podAffinity"}
    assert affinity(podAffinity={"mine": 1}) == {"podAffinity": {"mine": 1}}


def test_what_kubernetes_would_expand_in_a_configuration_is_escaped():
    config = builders.config(presence={"status": "$(HOME)"})
    (container,) = render.pod(builders.wanted(), builders.shard_range(config=config), 1)["spec"]["containers"]
    assert '"$$(HOME)"' in container["env"][-1]["value"]


def test_the_identity_is_what_only_an_identify_can_change():
    def identity(**spec):
        return render.shard_config(builders.gateway(**spec), gateway_url="wss://x", ranges=1).identity

    assert identity() == identity(pod=PodTemplate(image="x")) == identity(intents=(), intent_bits=builders.INTENTS)
    others = [identity(intents=("GUILDS",)), identity(presence={"status": "idle"}), identity(large_threshold=100)]
    assert len({identity(), *others}) == 4


def test_a_pod_that_tolerates_cordons_or_is_bound_to_a_volume_does_not_leave_its_node():
    assert render.leaves(builders.wanted())
    for kept in (
        {"pod": PodTemplate(tolerations=({"operator": "Exists"},))},
        {"pod": PodTemplate(tolerations=({"operator": "Exists", "effect": "NoSchedule"},))},
        {"pod": PodTemplate(tolerations=({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"},))},
        {"buffer": Buffer(volume_claim=VolumeClaim("1Gi"))},
    ):
        assert not render.leaves(builders.wanted(builders.gateway(**kept)))
    other = PodTemplate(tolerations=({"key": "mine"}, {"operator": "Exists", "effect": "NoExecute"}))
    assert render.leaves(builders.wanted(builders.gateway(pod=other)))


def test_heartbeats_are_rarer_above_two_hundred_ranges():
    assert (render.heartbeat_seconds(200), render.heartbeat_seconds(201)) == (5.0, 10.0)


def test_a_merge_patch_names_only_what_changes():
    old = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1], "g": 5}
    new = {"a": 1, "b": {"c": 3}, "e": [1, 2], "f": {"x": 1}}
    assert merge_diff(old, new) == {"b": {"c": 3, "d": None}, "e": [1, 2], "f": {"x": 1}, "g": None}
    assert merge_diff(old, old) == {}
