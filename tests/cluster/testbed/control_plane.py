"""The control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and CoreDNS, as plain processes.

Everything listens on loopback or on the node's own address. etcd does not sync its files: a bed that loses power is
made anew.
"""

from __future__ import annotations

import urllib.error
import urllib.request

from testbed import api, pki, settings
from testbed.processes import Daemon

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLERS = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
DNS = "coredns"
DNS_HEALTH = "127.0.0.1:18053"
COREFILE = settings.STATE / "Corefile"
COREFILE_TEXT = """\
{domain} {{
    bind {address}
    errors
    health {health}
    kubernetes {domain} {{
        kubeconfig {kubeconfig}
        ttl 2
    }}
}}
"""

# The default request rates are made for shared clusters: with them the controllers alone need 5 s to start.
_FAST = ("--kube-api-qps=500", "--kube-api-burst=1000")


def answers(url: str) -> bool:
    """Tell whether a plain health address answers with success."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def etcd() -> Daemon:
    """Return the one-member etcd."""
    argv = (
        str(settings.BIN / ETCD),
        "--name=testbed",
        f"--data-dir={settings.STATE / 'etcd'}",
        f"--listen-client-urls={settings.ETCD_CLIENT}",
        f"--advertise-client-urls={settings.ETCD_CLIENT}",
        f"--listen-peer-urls={settings.ETCD_PEER}",
        f"--initial-advertise-peer-urls={settings.ETCD_PEER}",
        f"--initial-cluster=testbed={settings.ETCD_PEER}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    return Daemon(name=ETCD, argv=argv, ready=lambda: answers(f"{settings.ETCD_CLIENT}/health"))


def api_server() -> Daemon:
    """Return the API server."""
    argv = (
        str(settings.BIN / API_SERVER),
        f"--etcd-servers={settings.ETCD_CLIENT}",
        f"--bind-address={settings.NODE_ADDRESS}",
        f"--advertise-address={settings.NODE_ADDRESS}",
        f"--secure-port={settings.API_PORT}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={settings.SERVICE_RANGE}",
        "--kubelet-preferred-address-types=InternalIP",
        *_api_server_keys(),
    )
    return Daemon(name=API_SERVER, argv=argv, ready=api.healthy)


def _api_server_keys() -> tuple[str, ...]:
    return (
        f"--token-auth-file={pki.TOKENS}",
        f"--client-ca-file={pki.CA}",
        f"--tls-cert-file={pki.certificate('apiserver')}",
        f"--tls-private-key-file={pki.key('apiserver')}",
        f"--kubelet-client-certificate={pki.certificate('kubelet-client')}",
        f"--kubelet-client-key={pki.key('kubelet-client')}",
        f"--service-account-key-file={pki.SERVICE_ACCOUNT_KEY}",
        f"--service-account-signing-key-file={pki.SERVICE_ACCOUNT_KEY}",
        f"--service-account-issuer=https://kubernetes.default.svc.{settings.CLUSTER_DOMAIN}",
    )


def controllers() -> Daemon:
    """Return the controller manager, each of its controllers with the rights of its own service account."""
    argv = (
        str(settings.BIN / CONTROLLERS),
        f"--kubeconfig={pki.kubeconfig(pki.CONTROLLERS)}",
        "--bind-address=127.0.0.1",
        f"--cert-dir={settings.PKI / CONTROLLERS}",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={pki.SERVICE_ACCOUNT_KEY}",
        f"--root-ca-file={pki.CA}",
        "--leader-elect=false",
        *_FAST,
    )
    return Daemon(name=CONTROLLERS, argv=argv, ready=lambda: True)


def scheduler() -> Daemon:
    """Return the scheduler."""
    argv = (
        str(settings.BIN / SCHEDULER),
        f"--kubeconfig={pki.kubeconfig(pki.SCHEDULER)}",
        "--bind-address=127.0.0.1",
        f"--cert-dir={settings.PKI / SCHEDULER}",
        "--leader-elect=false",
        *_FAST,
    )
    return Daemon(name=SCHEDULER, argv=argv, ready=lambda: True)


def dns() -> Daemon:
    """Return CoreDNS on the node's address: it tells names of services, and refuses all others at once."""
    argv = (str(settings.BIN / DNS), "-conf", str(COREFILE))
    return Daemon(name=DNS, argv=argv, ready=lambda: answers(f"http://{DNS_HEALTH}/health"))


def write_corefile() -> None:
    """Write what CoreDNS serves."""
    text = COREFILE_TEXT.format(
        address=settings.NODE_ADDRESS,
        health=DNS_HEALTH,
        domain=settings.CLUSTER_DOMAIN,
        kubeconfig=settings.ADMIN_KUBECONFIG,
    )
    COREFILE.write_text(text)


def all_daemons() -> tuple[Daemon, ...]:
    """Return the whole control plane, in the order in which it starts."""
    return (etcd(), api_server(), controllers(), scheduler(), dns())
