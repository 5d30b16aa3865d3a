"""The bodies of what the operator makes: pure functions from structs to Kubernetes' JSON."""

from __future__ import annotations

import posixpath
from typing import Any, Final

from shardwright_api import names
from shardwright_api.discord import intent_bits
from shardwright_api.resources import (
    API_VERSION,
    DiscordGateway,
    GatewaySpec,
    ObjectMeta,
    PodTemplate,
    RangeSpec,
    ShardConfig,
    ShardRange,
    to_wire,
)
from shardwright_api.sharding import Range
from shardwright_operator.kube import (
    BUDGETS,
    GATEWAYS,
    LEASES,
    PODS,
    RANGES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    Resource,
)
from shardwright_operator.observed import Wanted
from shardwright_operator.silence import FEW_RANGES
from shardwright_operator.views import ANNOTATION_SECRET_VERSION

Body = dict[str, Any]

CONTAINER: Final = "shard"
USER: Final = 65532
"""The unprivileged user that the shard image runs as."""
GRACE_SECONDS: Final = 60
_API_ACCESS: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_LEAVE_AFTER: Final = 30
_HEARTBEAT_FEW: Final = 5.0
_HEARTBEAT_MANY: Final = 10.0


# --- configuration ------------------------------------------------------------------------------------------------


def heartbeat_seconds(ranges: int) -> float:
    """Give the seconds between two heartbeats of a pod, so that many of them do not flood the API server."""
    return _HEARTBEAT_FEW if ranges <= FEW_RANGES else _HEARTBEAT_MANY


def bits(spec: GatewaySpec) -> int:
    """Add up the intents of a gateway."""
    return intent_bits(list(spec.intents), spec.intent_bits)


def shard_config(gateway: DiscordGateway, *, gateway_url: str, ranges: int) -> ShardConfig:
    """Render what the pods need to know of their gateway."""
    spec = gateway.spec
    return ShardConfig(
        gateway=gateway.metadata.name,
        gateway_url=gateway_url,
        intents=bits(spec),
        compression=spec.transport.compression,
        sinks=spec.sinks,
        presence=spec.presence,
        large_threshold=spec.large_threshold,
        heartbeat_seconds=heartbeat_seconds(ranges),
    )


# --- metadata -----------------------------------------------------------------------------------------------------


def _body(resource: Resource, metadata: Body, **rest: Any) -> Body:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **rest}


def _owner(resource: Resource, owner: ObjectMeta) -> list[Body]:
    """Refer to the controlling owner. Without `controller: true`, `kubectl drain` refuses to evict a pod."""
    reference = {"apiVersion": API_VERSION, "kind": resource.kind, "name": owner.name, "uid": owner.uid}
    return [{**reference, "controller": True, "blockOwnerDeletion": False}]


def _labels(gateway: str, bot_id: str = "") -> dict[str, str]:
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_GATEWAY: gateway}
    return {**labels, names.LABEL_BOT: bot_id} if bot_id else labels


def _child(gateway: DiscordGateway, name: str) -> Body:
    """Give the metadata of an object that dies with its gateway."""
    meta = gateway.metadata
    return {
        "name": name,
        "namespace": meta.namespace,
        "labels": _labels(meta.name),
        "ownerReferences": _owner(GATEWAYS, meta),
    }


def account_name(gateway: str) -> str:
    """Name the service account, Role and RoleBinding of a gateway's pods."""
    return f"shardwright-{gateway}"


# --- ShardRange ---------------------------------------------------------------------------------------------------


def shard_range(
    gateway: DiscordGateway,
    shards: Range,
    *,
    bot_id: str,
    max_concurrency: int,
    config: ShardConfig,
    revision: str,
    hold: bool,
) -> Body:
    """Render a new ShardRange."""
    spec = RangeSpec(
        *shards, bot_id=bot_id, max_concurrency=max_concurrency, config=config, revision=revision, hold=hold
    )
    metadata = _child(gateway, names.range_name(gateway.metadata.name, shards))
    metadata["labels"] = _labels(gateway.metadata.name, bot_id)
    return _body(RANGES, metadata, spec=to_wire(spec))


# --- rights -------------------------------------------------------------------------------------------------------


def service_account(gateway: DiscordGateway) -> Body:
    """Render the account that a gateway's pods run as."""
    metadata = _child(gateway, account_name(gateway.metadata.name))
    return _body(SERVICE_ACCOUNTS, metadata, automountServiceAccountToken=False)


def _rule(resource: Resource, resource_names: list[str], verbs: list[str], subresource: str = "") -> Body:
    plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
    return {"apiGroups": [resource.group], "resources": [plural], "resourceNames": resource_names, "verbs": verbs}


def role(gateway: DiscordGateway, *, ranges: list[str], leases: list[str]) -> Body:
    """Render the rights of a gateway's pods: these very objects, no create, no list."""
    rules = [
        _rule(GATEWAYS, [gateway.metadata.name], ["get"]),
        _rule(RANGES, ranges, ["get", "watch"]),
        _rule(RANGES, ranges, ["patch"], "status"),
        _rule(LEASES, leases, ["get", "watch", "update"]),
    ]
    return _body(ROLES, _child(gateway, account_name(gateway.metadata.name)), rules=rules)


def role_binding(gateway: DiscordGateway) -> Body:
    """Bind the account to its Role."""
    name = account_name(gateway.metadata.name)
    subject = {"kind": SERVICE_ACCOUNTS.kind, "name": name, "namespace": gateway.metadata.namespace}
    reference = {"apiGroup": ROLES.group, "kind": ROLES.kind, "name": name}
    return _body(ROLE_BINDINGS, _child(gateway, name), roleRef=reference, subjects=[subject])


# --- disruption, leases -------------------------------------------------------------------------------------------


def disruption_budget(gateway: DiscordGateway, *, min_available: int) -> Body:
    """Render the PodDisruptionBudget. An integer: anything else needs a scale subresource on the owner.

    Pods that are not ready (standing by, parked, starting) do not hold a drain up.
    """
    selector = {"matchLabels": _labels(gateway.metadata.name)}
    spec = {"minAvailable": min_available, "selector": selector, "unhealthyPodEvictionPolicy": "AlwaysAllow"}
    return _body(BUDGETS, _child(gateway, account_name(gateway.metadata.name)), spec=spec)


def lease(namespace: str, bot_id: str, bucket: int) -> Body:
    """Render the Lease of an identify bucket. Without an owner: deleting a gateway must not reset the limiter."""
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_BOT: bot_id}
    return _body(LEASES, {"name": names.lease_name(bot_id, bucket), "namespace": namespace, "labels": labels}, spec={})


# --- pod ----------------------------------------------------------------------------------------------------------


def pod(wanted: Wanted, owner: ShardRange, incarnation: int) -> Body:
    """Render a shard pod."""
    template = wanted.gateway.spec.pod
    return _body(PODS, _pod_metadata(wanted, owner, incarnation), spec=_pod_spec(wanted, owner, template))


def _pod_metadata(wanted: Wanted, owner: ShardRange, incarnation: int) -> Body:
    template, meta = wanted.gateway.spec.pod, owner.metadata
    gateway = wanted.gateway.metadata.name
    return {
        "name": names.pod_name(meta.name, meta.uid, incarnation),
        "namespace": meta.namespace,
        "labels": {**template.labels, **_labels(gateway, owner.spec.bot_id), names.LABEL_RANGE: meta.name},
        "annotations": {
            "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "state",
            **template.annotations,
            names.ANNOTATION_REVISION: owner.spec.revision,
            names.ANNOTATION_INCARNATION: str(incarnation),
            ANNOTATION_SECRET_VERSION: wanted.secret_version,
        },
        "ownerReferences": _owner(RANGES, meta),
    }


def _pod_spec(wanted: Wanted, owner: ShardRange, template: PodTemplate) -> Body:
    gateway = wanted.gateway.metadata.name
    spec: Body = {
        "serviceAccountName": account_name(gateway),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {**_pod_security(), **(template.security_context or {})},
        "tolerations": [*_tolerations(), *template.tolerations],
        "topologySpreadConstraints": _spread(template, gateway),
        "containers": [_container(wanted, owner, template)],
        "volumes": _volumes(wanted),
    }
    optional: Body = {
        "imagePullSecrets": list(template.image_pull_secrets),
        "nodeSelector": template.node_selector,
        "affinity": template.affinity,
        "priorityClassName": template.priority_class_name,
    }
    return spec | {name: value for name, value in optional.items() if value}


def _container(wanted: Wanted, owner: ShardRange, template: PodTemplate) -> Body:
    return {
        "name": CONTAINER,
        "image": wanted.image,
        "imagePullPolicy": template.image_pull_policy or wanted.pull_policy,
        "args": ["--namespace", owner.metadata.namespace, "--range", owner.metadata.name],
        "env": [*template.env, *_identity_env()],
        "ports": [{"name": "http", "containerPort": names.HTTP_PORT}],
        "readinessProbe": _probe("/readyz", periodSeconds=2, failureThreshold=2, timeoutSeconds=2),
        "livenessProbe": _probe("/healthz", periodSeconds=10, failureThreshold=3, timeoutSeconds=5),
        "resources": template.resources,
        "securityContext": _container_security(),
        "volumeMounts": [
            {"name": "token", "mountPath": posixpath.dirname(names.TOKEN_FILE), "readOnly": True},
            {"name": "state", "mountPath": names.STATE_DIR},
            {"name": "api-access", "mountPath": _API_ACCESS, "readOnly": True},
        ],
    }


def _probe(path: str, **rest: int) -> Body:
    return {"httpGet": {"path": path, "port": "http"}, **rest}


def _identity_env() -> list[Body]:
    fields = {"SHARDWRIGHT_POD_NAME": "metadata.name", "SHARDWRIGHT_POD_UID": "metadata.uid"}
    return [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]


def _pod_security() -> Body:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> Body:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _tolerations() -> list[Body]:
    """Leave a lost node after half a minute instead of five."""
    keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    rest = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _LEAVE_AFTER}
    return [{"key": key, **rest} for key in keys]


def _spread(template: PodTemplate, gateway: str) -> list[Body]:
    """Spread over nodes, where the user says nothing else; an empty list of theirs switches it off."""
    if template.topology_spread_constraints is not None:
        return list(template.topology_spread_constraints)
    selector = {"matchLabels": _labels(gateway)}
    rest = {"whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}
    return [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", **rest}]


def _volumes(wanted: Wanted) -> list[Body]:
    reference = wanted.gateway.spec.token_secret_ref
    items = [{"key": reference.key, "path": posixpath.basename(names.TOKEN_FILE)}]
    token = {"secretName": reference.name, "defaultMode": 0o440, "items": items}
    return [
        {"name": "token", "secret": token},
        {"name": "state", "emptyDir": {}},
        {"name": "api-access", "projected": {"defaultMode": 0o444, "sources": _api_access()}},
    ]


def _api_access() -> list[Body]:
    """Project what auto-mounting would mount, with a token that lives an hour."""
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
