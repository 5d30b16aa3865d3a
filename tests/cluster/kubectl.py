"""kubectl, as tests call it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


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


def merge_patch(name: str, change: dict[str, Any], *options: str) -> tuple[str, ...]:
    """Give kubectl's arguments for a merge patch."""
    return ("patch", name, "--type=merge", f"--patch={json.dumps(change)}", *options)
