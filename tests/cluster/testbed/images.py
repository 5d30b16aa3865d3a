"""The project's images: built from their Dockerfiles with buildah, imported into the nodes' containerd.

An image's *key* is a hash over its Dockerfile, every file that a `COPY` line of it names, and the base image's name.
The archive of a key is built once and kept in the cache; a node that has imported it does not import it again. So a
second run without changes costs a hash, and a bed made anew costs an import.

The base image is made by debootstrap, since not every machine reaches a registry of images: Debian's Python, which
is what the Dockerfiles' own default base holds too. `pip` inside a build reaches its index by the host's network and
CA bundle; buildah hands the host's proxy variables to build steps alone. Nothing of that stays in an image.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import archives, binaries, packages, processes, settings
from testbed.node import import_image
from testbed.progress import run, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.settings import NodeSettings

PROJECT_IMAGES = {
    "localhost/shardwright/operator:dev": "operator/Dockerfile",
    "localhost/shardwright/shard:dev": "shard-image/Dockerfile",
    "localhost/shardwright/simulator:dev": "simulator/Dockerfile",
}
NATS_IMAGE = "localhost/shardwright/nats:2.15"
BASE_IMAGE = "localhost/shardwright/python:3.11-bookworm-1"
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
NOT_IN_BASE = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/cache", "var/lib/apt")
ARCHIVES = settings.CACHE / "images"
LOG = settings.CACHE / "logs" / "images.log"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_ADVICE = "read the log; the whole command stands in it, to be run by hand"


def build_and_import() -> list[str]:
    """Have all images whose Dockerfile exists in every node that runs; return their names."""
    packages.require_root()
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    with (ARCHIVES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = {NATS_IMAGE: _nats_archive(), **_project_archives()}
        for node in _running_nodes():
            for name, archive in built.items():
                _import(node, name, archive)
        for old in set(ARCHIVES.glob("*.tar")) - set(built.values()):
            old.unlink()
    return list(built)


def _running_nodes() -> list[NodeSettings]:
    return [node for node in settings.NODES if processes.running(f"{node.name}-containerd") is not None]


def _nats_archive() -> Path:
    archive = ARCHIVES / f"nats-{binaries.NATS.version}.tar"
    if not archive.exists():
        binaries.require(binaries.NATS)
        program = binaries.NATS.folder / "nats-server"
        archives.of_program(program=program, name=NATS_IMAGE, command=["/nats-server"], to=archive)
    return archive


def _project_archives() -> dict[str, Path]:
    dockerfiles = {name: settings.REPOSITORY / path for name, path in PROJECT_IMAGES.items()}
    for name, dockerfile in dockerfiles.items():
        if not dockerfile.exists():
            say(f"skipping {name}: there is no {dockerfile.relative_to(settings.REPOSITORY)} yet")
    return {name: _archive(name, dockerfile) for name, dockerfile in dockerfiles.items() if dockerfile.exists()}


def _archive(name: str, dockerfile: Path) -> Path:
    """Return the archive of an image as its files are now, building it when there is none."""
    short = name.rpartition("/")[2].partition(":")[0]
    archive = ARCHIVES / f"{short}-{_key(dockerfile)}.tar"
    if not archive.exists():
        _build(name, dockerfile, archive)
    return archive


def _key(dockerfile: Path) -> str:
    digest = hashlib.sha256(BASE_IMAGE.encode())
    for path in (dockerfile, *_context_files(dockerfile)):
        digest.update(f"{path.relative_to(settings.REPOSITORY)}\0{path.stat().st_mode:o}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _context_files(dockerfile: Path) -> list[Path]:
    """Return every file of the build context that the Dockerfile copies."""
    found: set[Path] = set()
    for source in _copied(dockerfile.read_text()):
        for path in settings.REPOSITORY.glob(source.strip("/")):
            found.update([path] if path.is_file() else (inner for inner in path.rglob("*") if inner.is_file()))
    return sorted(path for path in found if "__pycache__" not in path.parts)


def _copied(dockerfile: str) -> Iterator[str]:
    for line in dockerfile.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] in {"COPY", "ADD"} and not any(word.startswith("--from") for word in words):
            yield from (word for word in words[1:-1] if not word.startswith("--"))


def _build(name: str, dockerfile: Path, archive: Path) -> None:
    packages.require(packages.NEEDED_FOR_IMAGES)
    _require_base()
    say(f"building {name} (log: {LOG})")
    bundle = os.environ.get("SSL_CERT_FILE", CA_BUNDLE)
    _buildah(
        "bud", "--isolation", "chroot", "--network", "host", "--layers", "--pull-never",
        "--build-arg", f"BASE_IMAGE={BASE_IMAGE}", "--build-arg", f"PIP_CERT={CA_BUNDLE}",
        "--volume", f"{bundle}:{CA_BUNDLE}:ro", "--file", dockerfile, "--tag", name, settings.REPOSITORY,
    )  # fmt: skip
    _push(name, archive)


def _push(name: str, archive: Path) -> None:
    """Write an image to an archive, uncompressed: it is read once, on this machine."""
    temporary = archive.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    _buildah("push", "--disable-compression", name, f"oci-archive:{temporary}:{name}")
    temporary.replace(archive)


def _buildah(verb: str, *arguments: str | Path) -> None:
    storage = ("--root", settings.CACHE / "buildah", "--runroot", settings.CACHE / "buildah-run")
    run(["buildah", *storage, "--storage-driver", "overlay", verb, *arguments], log=LOG, advice=_ADVICE)


def _require_base() -> None:
    """Have the base image in buildah's storage."""
    archive = settings.CACHE / "base" / f"{BASE_IMAGE.rpartition(':')[2]}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        say(f"making the base image by debootstrap (about a minute, once; log: {LOG})")
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            _debootstrap(Path(folder), archive)
    _buildah("pull", "--policy=missing", f"docker-archive:{archive}")


def _debootstrap(folder: Path, archive: Path) -> None:
    root, layer = folder / "root", folder / "layer.tar"
    command: list[str | Path] = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", root]
    run(command, log=LOG, advice="check that Debian's package mirror is reached: `apt-get update`")
    (root / "usr/bin/python").symlink_to("python3")
    excluded = [f"--exclude=./{path}/*" for path in NOT_IN_BASE]
    run(["tar", "-C", root, *excluded, "--numeric-owner", "-cf", layer, "."], log=LOG, advice=_ADVICE)
    archives.of_layer(layer=layer, name=BASE_IMAGE, config={"Env": [f"PATH={settings.SYSTEM_PATH}"]}, to=archive)


def import_like(other: NodeSettings, *, into: NodeSettings) -> None:
    """Give a node the images that another has, as far as the cache still has their archives."""
    for name, archive in _imported(other).items():
        if (ARCHIVES / archive).exists():
            _import(into, name, ARCHIVES / archive)
        else:
            say(f"not importing {name} into {into.name}: it was built anew since; run `images`")


def _import(node: NodeSettings, name: str, archive: Path) -> None:
    """Import an archive unless the node has imported this very one."""
    if _imported(node).get(name) != archive.name:
        say(f"importing {name} into {node.name}")
        import_image(archive, node)
        _record(node).write_text(json.dumps({**_imported(node), name: archive.name}))


def _imported(node: NodeSettings) -> dict[str, str]:
    """Return which archive of each image a node has imported last."""
    record = _record(node)
    return json.loads(record.read_text()) if record.exists() else {}


def _record(node: NodeSettings) -> Path:
    return node.state / "images.json"
