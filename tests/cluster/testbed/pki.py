"""Who is who: one CA, the API server's certificate, service-account keys, a token for each client, kubeconfigs.

Clients of the API server use static tokens. The API server itself shows the kubelets a client certificate.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

from testbed import settings
from testbed.progress import run

if TYPE_CHECKING:
    from pathlib import Path

ADMIN = "admin"
CONTROLLERS = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"
PROXY = "system:kube-proxy"
GROUPS = {
    CONTROLLERS: "",
    SCHEDULER: "",
    PROXY: "",
    **{node.user: "system:nodes" for node in settings.NODES},
    ADMIN: "system:masters",
}
TOKENS = settings.PKI / "tokens.csv"
CA = settings.PKI / "ca.crt"
SERVICE_ACCOUNT_KEY = settings.PKI / "service-accounts.key"

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
_DAYS = "3650"
_ADVICE = "check that `openssl version` prints 3.0 or newer"
_CA_EXTENSIONS = (
    "basicConstraints=critical,CA:TRUE",
    "keyUsage=critical,keyCertSign,cRLSign",
    "subjectKeyIdentifier=hash",
)
_SERVER_NAMES = (
    f"IP:{settings.NODE_ADDRESS},IP:127.0.0.1,IP:{settings.FIRST_SERVICE_ADDRESS},DNS:localhost,DNS:kubernetes,"
    f"DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.{settings.CLUSTER_DOMAIN}"
)


def certificate(name: str) -> Path:
    """Return the file of a certificate."""
    return settings.PKI / f"{name}.crt"


def key(name: str) -> Path:
    """Return the file of a certificate's key."""
    return settings.PKI / f"{name}.key"


def create() -> None:
    """Make all keys, certificates, tokens and kubeconfigs; leave them alone when all are there (the admin's comes last)."""
    if settings.ADMIN_KUBECONFIG.exists():
        return
    settings.PKI.mkdir(parents=True, exist_ok=True, mode=0o700)
    (settings.PKI / "openssl.cnf").write_text("[req]\ndistinguished_name = dn\n[dn]\n")
    _openssl_req("ca", "/CN=shardwright-testbed", *_CA_EXTENSIONS)
    _issue("apiserver", "/CN=kube-apiserver", "serverAuth", f"subjectAltName={_SERVER_NAMES}")
    _issue("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", "clientAuth")
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", SERVICE_ACCOUNT_KEY)
    _write_tokens()


def _issue(name: str, subject: str, usage: str, *extensions: str) -> None:
    common = ("basicConstraints=critical,CA:FALSE", "authorityKeyIdentifier=keyid", f"extendedKeyUsage={usage}")
    signer = ("-CA", CA, "-CAkey", key("ca"))
    _openssl_req(name, subject, *common, *extensions, signer=signer)


def _openssl_req(name: str, subject: str, *extensions: str, signer: tuple[str | Path, ...] = ()) -> None:
    files = ("-keyout", key(name), "-out", certificate(name), "-config", settings.PKI / "openssl.cnf")
    added = [word for extension in extensions for word in ("-addext", extension)]
    _openssl("req", "-x509", *_KEY, "-days", _DAYS, "-subj", subject, *files, *signer, *added)


def _openssl(*arguments: str | Path) -> None:
    run(["openssl", *arguments], log=settings.LOGS / "openssl.log", advice=_ADVICE)


def _write_tokens() -> None:
    tokens = {user: secrets.token_hex(16) for user in GROUPS}
    rows = [f'{token},{user},{user},"{GROUPS[user]}"' for user, token in tokens.items()]
    TOKENS.write_text("\n".join(rows) + "\n")
    for user, token in tokens.items():
        _write(kubeconfig(user), _kubeconfig(user, token))


def kubeconfig(user: str) -> Path:
    """Return the kubeconfig of one of the cluster's own clients."""
    if user == ADMIN:
        return settings.ADMIN_KUBECONFIG
    return settings.PKI / f"{user.replace(':', '-')}.kubeconfig"


def admin_token() -> str:
    """Return the token of the cluster's administrator."""
    config = json.loads(settings.ADMIN_KUBECONFIG.read_text())
    token: str = config["users"][0]["user"]["token"]
    return token


def _kubeconfig(user: str, token: str) -> str:
    name = "shardwright-testbed"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": settings.API_URL, "certificate-authority": str(CA)}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
    }
    return json.dumps(config, indent=2)


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.chmod(0o600)
    temporary.replace(path)
