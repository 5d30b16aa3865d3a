"""The bodies of what the operator makes: pure functions from structs to Kubernetes' JSON."""

from __future__ import annotations

import hashlib
import posixpath
from typing import Any, Final

import msgspec

from shardwright_api import names
from shardwright_api.discord import intent_bits
from shardwright_api.quantities import parse_bytes
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
from shardwright_operator import sink_secrets
from shardwright_operator.kube import (
    BUDGETS,
    CLAIMS,
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
from shardwright_operator.sums import ANNOTATION_RESTART_AT, ANNOTATION_TEMPLATE, identity, identity_hash
from shardwright_operator.views import ANNOTATION_BUFFER, ANNOTATION_IDENTITY, ANNOTATION_SECRET_VERSION

Body = dict[str, Any]

CONTAINER: Final = "shard"
USER: Final = 65532
"""The unprivileged user that the shard image runs as."""
GRACE_SECONDS: Final = 60
_API_ACCESS: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_LEAVE_AFTER: Final = 30
_HEARTBEAT_FEW: Final = 5.0
_HEARTBEAT_MANY: Final = 10.0
_CHECKPOINT_ROOM: Final = 16 * 1024 * 1024
"""Bytes of the volume that holds the checkpoint alone."""


# --- configuration ------------------------------------------------------------------------------------------------


def heartbeat_seconds(ranges: int) -> float:
    """Give the seconds between two heartbeats of a pod, so that many of them do not flood the API server."""
    return _HEARTBEAT_FEW if ranges <= FEW_RANGES else _HEARTBEAT_MANY


def bits(spec: GatewaySpec) -> int:
    """Add up the intents of a gateway."""
    return intent_bits(list(spec.intents), spec.intent_bits)


def shard_config(gateway: DiscordGateway, *, gateway_url: str, ranges: int) -> ShardConfig:
    """Render what the pods need to know of their gateway."""
    spec, intents = gateway.spec, bits(gateway.spec)
    return ShardConfig(
        gateway=gateway.metadata.name,
        gateway_url=gateway_url,
        intents=intents,
        compression=spec.transport.compression,
        sinks=spec.sinks,
        presence=spec.presence,
        large_threshold=spec.large_threshold,
        heartbeat_seconds=heartbeat_seconds(ranges),
        identity=identity_hash(intents=intents, presence=spec.presence, large_threshold=spec.large_threshold),
        buffer_memory=parse_bytes(spec.buffer.memory),
        buffer_disk=parse_bytes(spec.buffer.volume_claim.size if spec.buffer.volume_claim else spec.buffer.disk),
    )


def buffer_version(config: ShardConfig) -> str:
    """Hash the sinks and the buffer of a configuration: what a pod on which events wait could be waiting for."""
    text = msgspec.json.encode([config.sinks, config.buffer_memory, config.buffer_disk], order="deterministic")
    return hashlib.sha256(text).hexdigest()[:10]


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
    template: str,
    restart_at: str,
    hold: bool,
) -> Body:
    """Render a new ShardRange."""
    spec = RangeSpec(
        *shards, bot_id=bot_id, max_concurrency=max_concurrency, config=config, revision=revision, hold=hold
    )
    metadata = _child(gateway, names.range_name(gateway.metadata.name, shards))
    metadata["labels"] = _labels(gateway.metadata.name, bot_id)
    metadata["annotations"] = {ANNOTATION_TEMPLATE: template}
    if restart_at:
        metadata["annotations"][ANNOTATION_RESTART_AT] = restart_at
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
    """Render a shard pod of the range's revision."""
    template = _template(wanted, owner)
    metadata = _pod_metadata(wanted, owner, incarnation, template)
    return _body(PODS, metadata, spec=_pod_spec(wanted, owner, template))


def template_of(gateway: DiscordGateway, image: str) -> PodTemplate:
    """Give the pod template that a gateway asks for now, with the image that it stands for."""
    return msgspec.structs.replace(gateway.spec.pod, image=image)


def _template(wanted: Wanted, owner: ShardRange) -> PodTemplate:
    """Give the pod template of a range: that of its own revision, where the gateway wants another one by now."""
    noted = owner.metadata.annotations.get(ANNOTATION_TEMPLATE)
    if noted is None or owner.spec.revision == wanted.revision:
        return template_of(wanted.gateway, wanted.image)
    return msgspec.json.decode(noted, type=PodTemplate)


def _pod_metadata(wanted: Wanted, owner: ShardRange, incarnation: int, template: PodTemplate) -> Body:
    meta = owner.metadata
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
            ANNOTATION_BUFFER: buffer_version(owner.spec.config),
            ANNOTATION_IDENTITY: identity(owner.spec.config),
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
        "topologySpreadConstraints": _spread(wanted, template),
        "containers": [_container(wanted, owner, template)],
        "volumes": _volumes(wanted, owner),
    }
    optional: Body = {
        "imagePullSecrets": list(template.image_pull_secrets),
        "nodeSelector": template.node_selector,
        "affinity": _affinity(wanted, owner, template),
        "priorityClassName": template.priority_class_name,
    }
    return spec | {name: value for name, value in optional.items() if value}


def _container(wanted: Wanted, owner: ShardRange, template: PodTemplate) -> Body:
    return {
        "name": CONTAINER,
        "image": template.image,
        "imagePullPolicy": template.image_pull_policy or wanted.pull_policy,
        "args": ["--namespace", owner.metadata.namespace, "--range", owner.metadata.name],
        "env": [*template.env, *_identity_env(), _config_env(owner)],
        "ports": [{"name": "http", "containerPort": names.HTTP_PORT}],
        "readinessProbe": _probe("/readyz", periodSeconds=2, failureThreshold=2, timeoutSeconds=2),
        "livenessProbe": _probe("/healthz", periodSeconds=10, failureThreshold=3, timeoutSeconds=5),
        "resources": template.resources,
        "securityContext": _container_security(),
        "volumeMounts": [
            {"name": "token", "mountPath": posixpath.dirname(names.TOKEN_FILE), "readOnly": True},
            {"name": "state", "mountPath": names.STATE_DIR},
            {"name": "api-access", "mountPath": _API_ACCESS, "readOnly": True},
            *sink_secrets.mounts(wanted.gateway.spec.sinks),
        ],
    }


def _probe(path: str, **rest: int) -> Body:
    return {"httpGet": {"path": path, "port": "http"}, **rest}


def _identity_env() -> list[Body]:
    fields = {"SHARDWRIGHT_POD_NAME": "metadata.name", "SHARDWRIGHT_POD_UID": "metadata.uid"}
    return [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]


def _config_env(owner: ShardRange) -> Body:
    """Give the pod its configuration along: a container that starts anew must not read that of a later revision."""
    text = msgspec.json.encode(owner.spec.config).decode()
    return {"name": "SHARDWRIGHT_CONFIG", "value": text.replace("$(", "$$(")}  # Kubernetes expands $(NAME)


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


_CORDON: Final = "node.kubernetes.io/unschedulable"


def leaves(wanted: Wanted) -> bool:
    """Say whether a pod made now would not come to a cordoned node again, and can run while its predecessor does."""
    tolerated = {
        (one.get("key") or _CORDON, one.get("effect") or "NoSchedule") for one in wanted.gateway.spec.pod.tolerations
    }
    return (_CORDON, "NoSchedule") not in tolerated and wanted.gateway.spec.buffer.volume_claim is None


def _spread(wanted: Wanted, template: PodTemplate) -> list[Body]:
    """Spread over nodes, where the user says nothing else; an empty list of theirs switches it off.

    Not with a claim: the pods of a range must then come to the same node.
    """
    if template.topology_spread_constraints is not None:
        return list(template.topology_spread_constraints)
    if wanted.gateway.spec.buffer.volume_claim is not None:
        return []
    selector = {"matchLabels": _labels(wanted.gateway.metadata.name)}
    rest = {"whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}
    return [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", **rest}]


def _affinity(wanted: Wanted, owner: ShardRange, template: PodTemplate) -> Body | None:
    """Bring the pods of a range with a claim together: a volume is mounted on one node at a time.

    A podAffinity of the user's takes its place; their other affinities stand beside it.
    """
    if wanted.gateway.spec.buffer.volume_claim is None:
        return template.affinity
    selector = {"matchLabels": {names.LABEL_RANGE: owner.metadata.name}}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}, **(template.affinity or {})}


def claim(wanted: Wanted, owner: ShardRange) -> Body | None:
    """Render the claim that a range's spool is in, if it is in one."""
    volume_claim, meta = wanted.gateway.spec.buffer.volume_claim, owner.metadata
    if volume_claim is None:
        return None
    spec: Body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": volume_claim.size}}}
    if volume_claim.storage_class_name is not None:
        spec["storageClassName"] = volume_claim.storage_class_name
    metadata = {
        "name": names.claim_name(meta.name),
        "namespace": meta.namespace,
        "labels": {**_labels(wanted.gateway.metadata.name), names.LABEL_RANGE: meta.name},
        "ownerReferences": _owner(RANGES, meta),
    }
    return _body(CLAIMS, metadata, spec=spec)


def _state(wanted: Wanted, owner: ShardRange) -> Body:
    """Give the volume of checkpoint and spool. Without a spool it is small."""
    if wanted.gateway.spec.buffer.volume_claim is not None:
        return {"persistentVolumeClaim": {"claimName": names.claim_name(owner.metadata.name)}}
    return {"emptyDir": {"sizeLimit": str(max(_CHECKPOINT_ROOM, owner.spec.config.buffer_disk))}}


def _volumes(wanted: Wanted, owner: ShardRange) -> list[Body]:
    reference = wanted.gateway.spec.token_secret_ref
    items = [{"key": reference.key, "path": posixpath.basename(names.TOKEN_FILE)}]
    token = {"secretName": reference.name, "defaultMode": 0o440, "items": items}
    return [
        {"name": "token", "secret": token},
        {"name": "state", **_state(wanted, owner)},
        {"name": "api-access", "projected": {"defaultMode": 0o444, "sources": _api_access()}},
        *sink_secrets.volumes(wanted.gateway.spec.sinks),
    ]


def _api_access() -> list[Body]:
    """Project what auto-mounting would mount, with a token that lives an hour."""
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
