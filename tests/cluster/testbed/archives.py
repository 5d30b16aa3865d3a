"""Writes an image archive (the format of `docker save`) without any image tool: one layer, one configuration.

Used for images that are a single static program (pause, nats) and for the base image out of debootstrap's folder.
The same content gives the same bytes, so that an import can be skipped when nothing changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def of_program(*, program: Path, name: str, command: list[str], to: Path) -> None:
    """Write an image that holds nothing but one static program and an empty /tmp and /data."""
    layer = to.with_suffix(".layer")
    with tarfile.open(layer, "w") as content:
        for folder in ("tmp", "data"):
            content.addfile(_entry(folder, mode=0o1777, kind=tarfile.DIRTYPE))
        with program.resolve().open("rb") as body:
            content.addfile(_entry(program.name, mode=0o755, size=program.stat().st_size), body)
    of_layer(layer=layer, name=name, config={"Entrypoint": command, "User": "65532:65532"}, to=to)
    layer.unlink()


def of_layer(*, layer: Path, name: str, config: dict[str, Any], to: Path) -> None:
    """Write an image of one layer, which is an uncompressed tar file."""
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "shardwright testbed"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    temporary = to.with_suffix(".tmp")
    with tarfile.open(temporary, "w") as archive:
        _add_json(archive, "config.json", image)
        _add_json(archive, "manifest.json", manifest)
        with layer.open("rb") as content:
            archive.addfile(_entry("layer.tar", size=layer.stat().st_size), content)
    temporary.replace(to)


def _add_json(archive: tarfile.TarFile, name: str, content: Any) -> None:
    body = json.dumps(content).encode()
    archive.addfile(_entry(name, size=len(body)), io.BytesIO(body))


def _entry(name: str, *, mode: int = 0o644, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size, entry.type = mode, size, kind
    return entry
