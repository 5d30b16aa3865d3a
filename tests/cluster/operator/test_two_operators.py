"""Two operators by mistake, or one that wakes from a pause: no range has two holders, and nothing is granted twice."""

import asyncio
import contextlib
import itertools
import signal

import aiohttp

from cluster.operator.stage import ApiFailed, Operator


async def history(stage, seen):
    """Note who was active and who held each range, in every epoch, and what was granted."""
    while True:
        with contextlib.suppress(ApiFailed, aiohttp.ClientError):
            for one in await stage.list("sr"):
                spec, status = one["spec"], one.get("status", {})
                grants = (spec.get("identifyGrant", 0), status.get("identifiesSpent", 0))
                entry = (spec.get("epoch", 0), spec.get("activePod", ""), status.get("holder", ""), *grants)
                entries = seen.setdefault(one["metadata"]["name"], [])
                if not entries or entries[-1] != entry:
                    entries.append(entry)
        await asyncio.sleep(0.05)


def judge(seen):
    for name, entries in seen.items():
        for (epoch, active, holder, *_), (epoch2, active2, holder2, *_) in itertools.pairwise(entries):
            assert epoch2 >= epoch, name
            assert active2 == active or epoch2 > epoch, f"{name}: another active pod is another epoch"
            if holder2 and holder2 != holder:
                assert holder2 in {active, active2}, f"{name}: only the active pod takes a range"


async def test_two_operators_at_once_and_one_that_wakes_from_a_pause_agree(running):
    other = Operator(running.kubeconfig, running.namespaces, running.folder / "other.log")
    await other.start()
    seen = {}
    watching = asyncio.create_task(history(running, seen))
    try:
        await running.put_secret()
        await running.apply(shards={"count": 6, "perPod": 2})
        await running.ready(seconds=60)
        assert len(running.pods.identifies) == 6, "none is granted twice"

        other.process.send_signal(signal.SIGSTOP)
        await running.patch("dgw", "mybot", {"spec": {"pod": {"labels": {"team": "a"}}}})
        await running.until_condition("Progressing", "True", "RollingOut")
        other.process.send_signal(signal.SIGCONT)
        await running.until_condition("Progressing", "True", "Complete", seconds=90)
        await running.ready()
        assert len(running.pods.identifies) == 6
        grants = [one["spec"]["identifyGrant"] for one in await running.list("sr")]
        assert all(grant <= 3 for grant in grants), "at most one standing grant each"
    finally:
        watching.cancel()
        other.process.send_signal(signal.SIGCONT)
        await other.end(signal.SIGKILL)
    judge(seen)
    await running.until("one pod a range", lambda: _staying(running, 3))


async def _staying(stage, number):
    staying = [pod for pod in await stage.list("pods") if "deletionTimestamp" not in pod["metadata"]]
    return len(staying) == number
