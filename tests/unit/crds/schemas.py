"""The CRDs' schemas as the tests walk them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CRDS = Path(__file__).resolve().parents[3] / "crds"
FILES = sorted(CRDS.glob("*.yaml"))
PRESERVES_UNKNOWN = "x-kubernetes-preserve-unknown-fields"


@dataclass(frozen=True)
class Node:
    """One schema of a CRD: its path as `kubectl explain` writes it, and the schemas above it, the root first."""

    path: str
    schema: dict[str, Any]
    above: tuple[dict[str, Any], ...] = ()

    def children(self) -> Iterator[Node]:
        """Yield the properties, the items and the values of the map, metadata aside (Kubernetes owns it)."""
        above = (*self.above, self.schema)
        for name, schema in self.schema.get("properties", {}).items():
            if name != "metadata":
                yield Node(f"{self.path}.{name}", schema, above)
        for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
            if key in self.schema:
                yield Node(self.path + mark, self.schema[key], above)

    def walk(self) -> Iterator[Node]:
        """Yield this schema and all below it."""
        yield self
        for child in self.children():
            yield from child.walk()


def load(file: Path) -> dict[str, Any]:
    """Read a CRD."""
    crd: dict[str, Any] = yaml.safe_load(file.read_text())
    return crd


def root(kind: str) -> Node:
    """Give the schema of a kind."""
    crd = next(crd for crd in map(load, FILES) if crd["spec"]["names"]["kind"] == kind)
    return Node(kind, crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def nodes() -> list[Node]:
    """List every schema of every CRD."""
    return [node for file in FILES for node in root(load(file)["spec"]["names"]["kind"]).walk()]
