"""`Kube` in memory: objects, versions, compare-and-swap, watches; no validation, no defaults, no garbage collection."""

from __future__ import annotations

import asyncio
import itertools

import msgspec

from shardwright_operator.errors import ConflictError, NotFoundError
from shardwright_operator.kube import Resource


def merge(target, patch):
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


class MemoryKube:
    def __init__(self):
        self.objects = {}
        self.calls = []
        self.fail = {}
        self._version = itertools.count(100)
        self._uid = itertools.count(1)
        self.lines = asyncio.Queue()

    def put(self, resource: Resource, body):
        meta = {"uid": f"uid-{next(self._uid)}", **body["metadata"], "resourceVersion": str(next(self._version))}
        stored = {**body, "metadata": meta}
        self.objects[resource.plural, meta.get("namespace", ""), meta["name"]] = stored
        return stored

    def _note(self, verb, resource, name):
        self.calls.append((verb, resource.plural, name))
        error = self.fail.pop((verb, resource.plural), None)
        if error is not None:
            raise error

    def _stored(self, resource, namespace, name):
        try:
            return self.objects[resource.plural, namespace, name]
        except KeyError:
            raise NotFoundError(404, "NotFound", name) from None

    async def get(self, resource, namespace, name):
        self._note("get", resource, name)
        return msgspec.json.encode(self._stored(resource, namespace, name))

    async def list(self, resource, namespace="", *, labels="", limit=500, after=""):
        self._note("list", resource, "")
        found = [
            one
            for (plural, where, _), one in self.objects.items()
            if plural == resource.plural and namespace in {"", where}
        ]
        start = int(after or 0)
        size = limit or len(found) or 1
        rest = str(start + size) if start + size < len(found) else ""
        metadata = {"resourceVersion": str(next(self._version)), "continue": rest}
        return msgspec.json.encode({"metadata": metadata, "items": found[start : start + size]})

    async def create(self, resource, namespace, body):
        name = body["metadata"].get("name", "generated")
        self._note("create", resource, name)
        if (resource.plural, namespace, name) in self.objects:
            raise ConflictError(409, "AlreadyExists", name)
        return msgspec.json.encode(self.put(resource, body))

    async def patch(self, resource, namespace, name, body, *, subresource=""):
        self._note("patch", resource, name)
        stored = self._stored(resource, namespace, name)
        for field in ("resourceVersion", "uid"):
            if body.get("metadata", {}).get(field, stored["metadata"][field]) != stored["metadata"][field]:
                raise ConflictError(409, "Conflict", name)
        return msgspec.json.encode(self.put(resource, merge(stored, body)))

    async def apply(self, resource, namespace, body):
        self._note("apply", resource, body["metadata"]["name"])
        return msgspec.json.encode(self.put(resource, body))

    async def delete(self, resource, namespace, name, *, uid):
        self._note("delete", resource, name)
        if self._stored(resource, namespace, name)["metadata"]["uid"] != uid:
            raise ConflictError(409, "Conflict", name)
        del self.objects[resource.plural, namespace, name]

    async def watch(self, resource, namespace, version):
        self._note("watch", resource, version)
        yield b""
        while True:
            line = await self.lines.get()
            if line is None:
                return
            if isinstance(line, Exception):
                raise line
            yield line
