"""Each short kind of fault once, on one setting under load: nothing lost, nothing stored twice, no identify spent."""

from __future__ import annotations

import asyncio

import pytest

from chaos import report
from chaos.faults import STRIKES
from chaos.kinds import KINDS, SINGLE, each_once
from chaos.setting import NotHealed, Setting, as_dict, run


def test_every_kind_of_fault_can_strike():
    assert set(STRIKES) == set(KINDS)


@pytest.mark.timeout(420)
async def test_no_single_fault_loses_an_event_or_spends_an_identify(bed):
    """500 events/s over 16 shards of 100 guilds; `make chaos` runs them by the hundred, and the long kinds too."""
    await asyncio.to_thread(bed.images)
    results = []
    async with Setting(bed) as setting:
        for planned in each_once(SINGLE):
            try:
                results.append(report.result(planned, as_dict(await run(setting, planned, STRIKES[planned.kind]))))
            except NotHealed as error:
                pytest.fail(f"{planned}: {error}\n{await setting.evidence()}")
            print(report.line(results[-1]))
    print(f"\n{report.table(results)}")
    assert [found for found in results if found["misses"]] == []
