"""`make chaos [SEED=n] [FAULTS=200] [KIND=name] [DOUBLE=1]`: faults one after another, a line each, a table at the end.

Results go to `<cache>/chaos/`, a file for each seed; the same seed goes on where its file ends. With KIND, faults of
that kind alone, and no file. 1 is returned if any promise did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import testbed
from testbed import settings

from chaos import report
from chaos.faults import STRIKES
from chaos.kinds import DOUBLE, KINDS, SINGLE, Planned, first
from chaos.report import Result
from chaos.setting import NotHealed, Setting, as_dict, run

FOLDER = settings.CACHE / "chaos"
NODE_KINDS = {"node-drained", "node-lost"}


def main() -> int:
    """Run what is left of the plan; 0 if every promise held in every fault of it."""
    options = _parse()
    file = FOLDER / f"{options.seed}{'-double' if options.double else ''}.jsonl"
    results = [] if options.kind else report.read(file)
    planned = _plan(options)
    left = planned[len(results) :]
    print(f"seed {options.seed}: {len(planned)} faults, {len(results)} done before; results in {file}", flush=True)
    keep = None if options.kind else file
    results = results[: len(planned)] + asyncio.run(_all(left, keep))
    print("\n" + report.table(results))
    missed = [found for found in results if found["misses"]]
    for found in missed:
        print(report.line(found))
        print(f"    again: make chaos KIND={found['planned']['kind']} SEED={options.seed}")
    return 1 if missed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--kind", default="", choices=["", *KINDS])
    parser.add_argument("--double", action="store_true")
    return parser.parse_args()


def _plan(options: argparse.Namespace) -> list[Planned]:
    planned = first(options.seed, options.faults, DOUBLE if options.double else SINGLE)
    return [replace(one, kind=options.kind) for one in planned] if options.kind else planned


async def _all(planned: list[Planned], file: Path | None) -> list[Result]:
    """Let faults strike one after another, in a setting that is made anew when it does not heal."""
    results: list[Result] = []
    bed = testbed.up()
    if planned:
        bed.images()
    while len(results) < len(planned):
        async for found in _in_one_setting(bed, planned[len(results) :]):
            results.append(found)
            print(f"{time.strftime('%H:%M:%S')} {report.line(found)}", flush=True)
            if file is not None:
                report.append(file, found)
    return results


async def _in_one_setting(bed: testbed.Cluster, planned: list[Planned]) -> AsyncIterator[Result]:
    async with Setting(bed, second_node=any(one.kind in NODE_KINDS for one in planned)) as setting:
        for one in planned:
            try:
                yield report.result(one, as_dict(await run(setting, one, STRIKES[one.kind])))
            except NotHealed as error:
                log = FOLDER / f"not-healed-{setting.namespace}.log"
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(await setting.evidence())
                yield report.result(one, None, f"{error}; evidence in {log}")
                return


if __name__ == "__main__":
    sys.exit(main())
