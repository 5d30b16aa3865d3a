"""A very small client of the API server, for what the bed itself has to ask."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from testbed import pki, settings

SECONDS = 5.0


def get(path: str) -> dict[str, Any] | None:
    """Return an object, or None when it or the API server is not there."""
    body = _request("GET", path)
    return None if body is None else json.loads(body)


def healthy() -> bool:
    """Tell whether the API server is ready."""
    return settings.ADMIN_KUBECONFIG.exists() and _request("GET", "/readyz") == b"ok"


def delete(path: str) -> None:
    """Delete an object; it may be gone already."""
    _request("DELETE", path)


def node_ready(name: str) -> bool:
    """Tell whether a node's Ready condition is true."""
    node = get(f"/api/v1/nodes/{name}") or {}
    conditions = node.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _request(method: str, path: str) -> bytes | None:
    headers = {"Authorization": f"Bearer {pki.admin_token()}"}
    request = urllib.request.Request(settings.API_URL + path, method=method, headers=headers)
    try:
        with _opener().open(request, timeout=SECONDS) as response:
            body: bytes = response.read()
    except (OSError, urllib.error.URLError):
        return None
    return body


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that trusts the bed's CA alone and never goes through a proxy."""
    context = ssl.create_default_context(cafile=str(pki.CA))
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
