"""kubectl, as tests call it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from road import OPERATOR_NAMESPACE

CRDS = Path(__file__).resolve().parents[2] / "crds"
HELM_OWNS = {
    "labels": {"app.kubernetes.io/managed-by": "Helm"},
    "annotations": {
        "meta.helm.sh/release-name": "shardwright",
        "meta.helm.sh/release-namespace": OPERATOR_NAMESPACE,
        "helm.sh/resource-policy": "keep",
    },
}


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one kubeconfig and one namespace."""

    kubeconfig: Path
    namespace: str = "default"

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command and give what came of it."""
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run a command that must succeed; give its output."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        """Run a command that must fail; give what the API server said."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} was not refused: {done.stdout}"
        return done.stderr

    def answer(self, *arguments: str) -> str:
        """Run a command that may fail; give all that it says."""
        done = self.run(*arguments)
        return done.stdout + done.stderr

    def create(self, manifest: dict[str, Any], *options: str) -> dict[str, Any]:
        """Create an object; give it as the API server stores it."""
        stored: dict[str, Any] = json.loads(self("create", "-f-", "-ojson", *options, stdin=json.dumps(manifest)))
        return stored

    def with_token(self, token: str, kubeconfig: Path) -> Kubectl:
        """Give kubectl for the same cluster with a bearer token alone; write its kubeconfig."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        (context,) = [each for each in config["contexts"] if each["name"] == config["current-context"]]
        config["users"] = [{"name": context["context"]["user"], "user": {"token": token}}]
        kubeconfig.write_text(yaml.safe_dump(config))
        return dataclasses.replace(self, kubeconfig=kubeconfig)


def install_crds(kubectl: Kubectl) -> None:
    """Have the CRDs as `crds/` says, marked as the operator's release would: Helm adopts no CRD of somebody else."""
    manifests = [yaml.safe_load(file.read_text()) for file in CRDS.glob("*.yaml")]
    for manifest in manifests:
        manifest["metadata"] |= HELM_OWNS
    stdin = yaml.safe_dump_all(manifests)
    kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f-", stdin=stdin)
    kubectl("wait", "--for=condition=Established", "--timeout=30s", f"-f{CRDS}")


def merge_patch(name: str, change: dict[str, Any], *options: str) -> tuple[str, ...]:
    """Give kubectl's arguments for a merge patch."""
    return ("patch", name, "--type=merge", f"--patch={json.dumps(change)}", *options)
