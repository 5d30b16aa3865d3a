"""`make demo`: the whole road before your eyes, from `kubectl apply` to events in a JetStream stream.

It leaves everything running, so that you can look around; the last lines say how to look and how to clean up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

from road import OPERATOR_NAMESPACE, Cluster, Comparison, NotInTime, Road

NAMESPACE = "shardwright-demo"
SHARDS = 8
PER_POD = 4
RATE = 200
SECONDS = 10
_START = time.monotonic()


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"[{time.monotonic() - _START:4.0f} s] {text}", flush=True)


def main() -> int:
    """Walk the road; 0 if every event that was sent was received."""
    options = _parse()
    cluster = _current(options.images) if options.cluster == "current" else _bed()
    say("installing the operator with helm")
    cluster.install_operator()
    road = Road(cluster, NAMESPACE)
    _clean(road)
    say("starting a simulated Discord and a NATS server")
    road.set_up(bot={"guilds": 400, "max_concurrency": 4}, options={"latency": [0.05, 0.2]})
    road.make_secret()
    say(f"kubectl apply: a DiscordGateway with {SHARDS} shards, {PER_POD} a pod")
    road.apply_gateway(shards={"count": SHARDS, "perPod": PER_POD})
    _until_ready(road)
    say(f"{RATE} events/s for {SECONDS} s")
    road.simulator.load(rate=RATE, seconds=SECONDS)
    say("comparing what was sent with what stands in the stream")
    result = road.compare()
    _show(road, result)
    return 1 if result.faults() or road.simulator.violations() else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--cluster", choices=["bed", "current"], default="bed")
    parser.add_argument(
        "--images", default="localhost/shardwright", help="with --cluster current: where its nodes find the images"
    )
    return parser.parse_args()


def _bed() -> Cluster:
    import testbed

    say("bringing the test bed up: a real Kubernetes node on this machine")
    bed = testbed.up()
    say("building the images")
    bed.images()
    return Cluster(bed.kubeconfig, str(bed.bin / "kubectl"), str(bed.bin / "helm"))


def _current(images: str) -> Cluster:
    cluster = Cluster(kubeconfig=None, forward=True, images=images)
    context = cluster.kubectl("config", "current-context").strip()
    say(f"using the current kubectl context: {context}")
    return cluster


def _clean(road: Road) -> None:
    """Remove what an earlier demo left."""
    if road.cluster.get("namespace", road.namespace) is not None:
        say("removing the last demo")
        road.cluster.kubectl("delete", "namespace", road.namespace, "--wait")


def _until_ready(road: Road) -> None:
    """Wait for Ready, showing each new state on the way."""
    shown = ""
    end = time.monotonic() + 180
    while time.monotonic() < end:
        status = road.dgw().get("status", {})
        shards: dict[str, Any] = status.get("shards", {})
        line = f"{status.get('phase', 'Pending')}: {shards.get('ready', 0)}/{shards.get('total', SHARDS)} shards ready"
        if line != shown:
            say(line)
            shown = line
        if road.condition("Ready").get("status") == "True":
            return
        time.sleep(0.5)
    raise NotInTime(f"the DiscordGateway is not Ready after 180 s\n{road.describe()}")


def _show(road: Road, result: Comparison) -> None:
    for what in ("dgw", "sr", "pods", "lease"):
        print(f"\n$ kubectl get {what}", flush=True)
        print(road.cluster.kubectl("get", what, "-n", road.namespace), end="")
    print("\nDiscordGateway conditions")
    for condition in road.dgw()["status"]["conditions"]:
        print(f"  {condition['type']:16} {condition['status']:8} {condition['reason']}: {condition['message']}")
    stored = result.received
    print(f"\nevents sent {result.sent} · in the stream {stored} · missing {len(result.missing)} · "
          f"different {len(result.different)} · twice {len(result.twice)} · out of order {len(result.out_of_order)}")  # fmt: skip
    print(f"violations that the simulator saw: {len(road.simulator.violations())}")
    kubeconfig = f"export KUBECONFIG={road.cluster.kubeconfig}; " if road.cluster.kubeconfig else ""
    print(f"\nLook around: {kubeconfig}kubectl get dgw,sr,pods -n {road.namespace}")
    print(f"The operator's log: kubectl logs -n {OPERATOR_NAMESPACE} deploy/shardwright")
    print("Clean up: make clean" if road.cluster.kubeconfig else f"Clean up: kubectl delete namespace {road.namespace}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (NotInTime, RuntimeError, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
