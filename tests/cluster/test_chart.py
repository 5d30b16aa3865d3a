"""The chart: what it renders, what its roles allow on a real API server, and what its admission policy refuses."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubectl import CRDS, Kubectl, install_crds, merge_patch

from shardwright_api import names
from shardwright_api.sharding import Range

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "shardwright"
TAKES_EFFECT = 30.0
SHARD_POD_RULES = [
    {"apiGroups": ["shardwright.dev"], "resources": ["discordgateways"], "verbs": ["get"]},
    {"apiGroups": ["shardwright.dev"], "resources": ["shardranges"], "verbs": ["get", "watch"]},
    {"apiGroups": ["shardwright.dev"], "resources": ["shardranges/status"], "verbs": ["patch"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "watch", "update"]},
]


@dataclass(frozen=True)
class Chart:
    """The chart, rendered as a release in a namespace."""

    helm: Path
    release: str = "shardwright"
    namespace: str = "discord"

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Render; give what came of it."""
        command = [str(self.helm), "template", self.release, str(CHART), f"--namespace={self.namespace}", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def text(self, *options: str) -> str:
        """Give what it renders."""
        done = self.run(*options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def objects(self, *options: str) -> list[dict[str, Any]]:
        """Give the objects that it renders."""
        return [manifest for manifest in yaml.safe_load_all(self.text(*options)) if manifest]

    def one(self, kind: str, *options: str) -> dict[str, Any]:
        """Give the only object of a kind."""
        (found,) = [manifest for manifest in self.objects(*options) if manifest["kind"] == kind]
        return found

    def kinds(self, *options: str) -> set[str]:
        """Name the kinds that it renders."""
        return {manifest["kind"] for manifest in self.objects(*options)}


@pytest.fixture
def chart(helm):
    """The chart as most people install it."""
    return Chart(helm)


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    """Give the operator's container."""
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return found


def environment(deployment: dict[str, Any]) -> dict[str, str]:
    """Give the operator's environment."""
    return {variable["name"]: variable["value"] for variable in container(deployment)["env"]}


def test_it_passes_helms_own_checks(helm):
    done = subprocess.run([helm, "lint", "--strict", CHART], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_the_notes_render_and_name_the_namespace_that_is_watched(helm):
    command = [
        helm,
        "install",
        "shardwright",
        CHART,
        "--dry-run=client",
        "--namespace=discord",
        "--set=watchNamespaces={bots}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "kubectl -n bots apply -f -" in done.stdout


def test_the_operator_runs_under_the_restricted_pod_security_standard(chart):
    deployment = chart.one("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert pod["automountServiceAccountToken"] is True
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(deployment)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container(deployment)["resources"] == {}


def test_probes_ask_the_port_that_the_operator_serves(chart):
    operator = container(chart.one("Deployment"))
    assert operator["ports"] == [{"name": "http", "containerPort": names.HTTP_PORT}]
    assert operator["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert operator["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


def test_images_follow_the_charts_app_version_unless_told_otherwise(chart):
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    deployment = chart.one("Deployment")
    assert container(deployment)["image"] == f"shardwright/operator:{version}"
    assert environment(deployment)["SHARDWRIGHT_SHARD_IMAGE"] == f"shardwright/shard:{version}"
    digest = "sha256:" + "0" * 64
    told = chart.one(
        "Deployment",
        "--set=image.repository=here/op,image.tag=v1,shard.image=here/shard:2",
        f"--set=image.digest={digest}",
    )
    assert container(told)["image"] == f"here/op@{digest}"
    assert environment(told)["SHARDWRIGHT_SHARD_IMAGE"] == "here/shard:2"


def test_cluster_wide_there_is_one_cluster_role_and_no_namespace_list(chart):
    assert {"Role", "RoleBinding"}.isdisjoint(chart.kinds())
    assert environment(chart.one("Deployment"))["SHARDWRIGHT_NAMESPACES"] == ""
    assert "matchResources" not in chart.one("ValidatingAdmissionPolicyBinding")["spec"]


def test_namespaced_there_are_roles_in_just_those_namespaces(chart):
    options = "--set=watchNamespaces={one,two}"
    assert {"ClusterRole", "ClusterRoleBinding"}.isdisjoint(chart.kinds(options))
    rendered = chart.objects(options)
    for kind in ("Role", "RoleBinding"):
        assert [each["metadata"]["namespace"] for each in rendered if each["kind"] == kind] == ["one", "two"]
    assert environment(chart.one("Deployment", options))["SHARDWRIGHT_NAMESPACES"] == "one,two"
    selector = chart.one("ValidatingAdmissionPolicyBinding", options)["spec"]["matchResources"]["namespaceSelector"]
    assert selector["matchExpressions"][0]["values"] == ["one", "two"]


def test_secrets_are_read_by_name_alone(chart):
    rules = chart.one("ClusterRole")["rules"]
    assert [rule["verbs"] for rule in rules if "secrets" in rule["resources"]] == [["get"]]
    assert not any("*" in rule["verbs"] + rule["resources"] + rule["apiGroups"] for rule in rules)


def test_crds_come_and_stay_as_told(chart):
    def crds(*options: str) -> list[dict[str, Any]]:
        return [each for each in chart.objects(*options) if each["kind"] == "CustomResourceDefinition"]

    assert [each["metadata"]["annotations"] for each in crds()] == [{"helm.sh/resource-policy": "keep"}] * 2
    assert all("annotations" not in each["metadata"] for each in crds("--set=crds.keep=false"))
    assert crds("--set=crds.enabled=false") == []


def test_crds_are_rendered_exactly_as_their_source_says(chart):
    rendered = {
        each["metadata"]["name"]: each["spec"] for each in chart.objects() if each["kind"].startswith("CustomRes")
    }
    sources = [yaml.safe_load(file.read_text()) for file in CRDS.glob("*.yaml")]
    assert rendered == {each["metadata"]["name"]: each["spec"] for each in sources}


def test_the_admission_policy_can_be_left_out(chart):
    assert "ValidatingAdmissionPolicy" in chart.kinds()
    assert not any("Admission" in kind for kind in chart.kinds("--set=admissionPolicy.enabled=false"))


@pytest.mark.parametrize(
    "option", ["watchNamespace=a", "image.tagg=a", "image.pullPolicy=Sometimes", "crds.keep=maybe"]
)
def test_a_mistyped_value_is_refused(chart, option):
    assert chart.run(f"--set={option}").returncode != 0


def test_the_operators_account_is_never_one_of_the_shard_pods(helm):
    assert Chart(helm, release="shardwright").one("ServiceAccount")["metadata"]["name"] == "shardwright"
    assert (
        Chart(helm, release="shardwright-prod").one("ServiceAccount")["metadata"]["name"] == "operator-shardwright-prod"
    )
    refused = Chart(helm).run("--set=serviceAccount.name=shardwright-mybot")
    assert refused.returncode != 0
    assert "kept for the service accounts of shard pods" in refused.stderr


# --- on the API server ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def admin(kubeconfig):
    """kubectl with the CRDs installed and a namespace of its own."""
    cluster = Kubectl(kubeconfig, f"chart-{secrets.token_hex(4)}")
    install_crds(cluster)
    cluster("create", "namespace", cluster.namespace)
    yield cluster
    cluster("delete", "namespace", cluster.namespace, "--wait=false")


@pytest.fixture(scope="module")
def as_operator(admin):
    """kubectl's option for acting as the operator."""
    return f"--as=system:serviceaccount:{admin.namespace}:shardwright"


def eventually(kubectl: Kubectl, *arguments: str, says: str) -> None:
    """Repeat a command until the API server, which learns of roles and policies a little later, answers so."""
    deadline = time.monotonic() + TAKES_EFFECT
    while says not in (answer := kubectl.answer(*arguments)):
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)


@pytest.fixture(scope="module")
def installed(helm, admin, as_operator):
    """The chart's roles and policy for that namespace, without the operator itself."""
    release = Chart(helm, namespace=admin.namespace)
    rights = {"ServiceAccount", "Role", "RoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    options = f"--set=watchNamespaces={{{admin.namespace}}}"
    manifests = yaml.safe_dump_all([each for each in release.objects(options) if each["kind"] in rights])
    admin("apply", "-f-", stdin=manifests)
    eventually(admin, "auth", "can-i", "get", "secrets", as_operator, says="yes")
    yield
    admin("delete", "-f-", "--wait=false", stdin=manifests)


def shard_role(*, more: list[dict[str, Any]]) -> str:
    """Give a Role such as the operator makes for a DiscordGateway."""
    return json.dumps(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "shardwright-mybot"},
            "rules": SHARD_POD_RULES + more,
        }
    )


@pytest.mark.usefixtures("installed")
def test_the_operator_may_give_shard_pods_their_rights_and_no_more(admin, as_operator):
    admin("create", "-f-", "--dry-run=server", as_operator, stdin=shard_role(more=[]))
    more = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}
    message = admin.refused("create", "-f-", "--dry-run=server", as_operator, stdin=shard_role(more=[more]))
    assert "attempting to grant RBAC permissions not currently held" in message


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("get", "secrets", "yes"),
        ("list", "secrets", "no"),
        ("watch", "secrets", "no"),
        ("update", "discordgateways", "no"),
        ("patch", "discordgateways/status", "yes"),
        ("create", "pods", "yes"),
        ("create", "pods/exec", "no"),
        ("list", "nodes", "no"),
    ],
)
def test_the_operators_rights_are_these(admin, as_operator, verb, resource, allowed):
    done = admin.run("auth", "can-i", verb, *resource_arguments(resource), as_operator)
    assert done.stdout.strip() == allowed


def resource_arguments(resource: str) -> list[str]:
    """Give kubectl's arguments for a resource and its subresource."""
    name, _, subresource = resource.partition("/")
    return [name, f"--subresource={subresource}"] if subresource else [name]


@pytest.fixture(scope="module")
def ranges(admin):
    """Two ShardRanges of one gateway; a name and a UID for each."""
    stored = []
    for first in (0, 16):
        name = names.range_name("mybot", Range(first, first + 15, 32))
        spec = {"first": first, "last": first + 15, "total": 32, "botId": "1", "maxConcurrency": 1}
        config = {"gateway": "mybot", "gatewayURL": "ws://gateway", "intents": 1}
        manifest = {
            "apiVersion": "shardwright.dev/v1alpha1",
            "kind": "ShardRange",
            "metadata": {"name": name},
            "spec": {**spec, "config": config},
        }
        stored.append(admin.create(manifest)["metadata"])
    return stored


@pytest.fixture(scope="module")
def shard_pod(admin, installed, ranges, kubeconfig, tmp_path_factory):
    """kubectl as the pod of the first range, with the token that the kubelet would give it."""
    admin("create", "serviceaccount", "shardwright-mybot")
    of_kubectl = {"apiGroups": ["shardwright.dev"], "resources": ["shardranges/status"], "verbs": ["get"]}
    too_much = {"apiGroups": ["shardwright.dev"], "resources": ["shardranges"], "verbs": ["patch"]}
    admin("create", "-f-", stdin=shard_role(more=[of_kubectl, too_much]))
    account = f"{admin.namespace}:shardwright-mybot"
    admin("create", "rolebinding", "shardwright-mybot", "--role=shardwright-mybot", f"--serviceaccount={account}")
    pod = names.pod_name(ranges[0]["name"], ranges[0]["uid"], 1)
    spec = {
        "serviceAccountName": "shardwright-mybot",
        "nodeSelector": {"no": "node"},
        "containers": [{"name": "shard", "image": "none"}],
    }
    admin.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec})
    token = admin("create", "token", "shardwright-mybot", "--bound-object-kind=Pod", f"--bound-object-name={pod}")
    kubectl = admin.with_token(token.strip(), tmp_path_factory.mktemp("pod") / "kubeconfig")
    eventually(kubectl, "auth", "can-i", "patch", "shardranges", says="yes")
    eventually(kubectl, *report(ranges[1]["name"]), says="ValidatingAdmissionPolicy")
    return kubectl


def report(name: str) -> tuple[str, ...]:
    """Give the patch by which a pod reports on a range."""
    return merge_patch(f"sr/{name}", {"status": {"spoolBytes": 1}}, "--subresource=status")


def test_a_shard_pod_reports_on_its_own_range(shard_pod, ranges):
    shard_pod(*report(ranges[0]["name"]))


def test_a_shard_pod_cannot_report_on_another_range(shard_pod, ranges):
    message = shard_pod.refused(*report(ranges[1]["name"]))
    pod = names.pod_name(ranges[0]["name"], ranges[0]["uid"], 1)
    assert f"pod {pod} does not serve ShardRange {ranges[1]['name']}" in message


def test_a_shard_pod_cannot_grant_itself_an_identify_whatever_its_role_says(shard_pod, ranges):
    message = shard_pod.refused(*merge_patch(f"sr/{ranges[0]['name']}", {"spec": {"identifyGrant": 9}}))
    assert "shard pods write nothing of a ShardRange but its status" in message


@pytest.mark.usefixtures("shard_pod")
def test_a_token_without_a_pod_reports_on_nothing(admin, ranges, tmp_path):
    token = admin("create", "token", "shardwright-mybot").strip()
    assert "does not serve" in admin.with_token(token, tmp_path / "kubeconfig").refused(*report(ranges[0]["name"]))


@pytest.mark.usefixtures("shard_pod")
def test_the_operator_itself_is_not_held_back(admin, as_operator, ranges):
    stored = admin(
        "get", f"sr/{ranges[1]['name']}", "-ojson"
    )  # with its version, so that kubectl needs no get of its own
    admin("replace", "-f-", "--subresource=status", as_operator, stdin=stored)
