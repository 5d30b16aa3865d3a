"""What a fault's outcome misses, the file of results, and the table at the end. Pure, but for reading and appending.

A result is a line of JSON: the planned fault, what was measured, and `misses`, the promises that did not hold. A run
goes on behind the last line of its file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chaos.kinds import KINDS, Kind, Planned

Result = dict[str, Any]
_HEAD = (
    "fault", "runs", "events sent", "stored", "lost", "in a told gap", "stored twice", "identifies", "longest silence (s)",
    "slowest event (s)", "healed after (s)", "misses",
)  # fmt: skip


def misses(kind: Kind, measured: dict[str, Any]) -> list[str]:
    """Name the promises that a measured fault breaks."""
    window = measured["window"]
    violations = [text for text in measured["violations"] if text.split(":")[0] not in kind.rules]
    found = {
        f"{window['lost_count']} events lost: {window['lost']}": window["lost_count"],
        f"{window['told']} events in a told gap, where no session had to end": window["told"] and not kind.gap,
        f"{window['twice_count']} events stored twice: {window['twice']}": window["twice_count"],
        f"{len(window['altered'])} events stored with other bytes than were sent: {window['altered'][:5]}": window[
            "altered"
        ],
        f"{measured['identifies']} identifies, {kind.identifies} expected": measured["identifies"] > kind.identifies,
        f"rules of Discord's broken: {violations[:5]}": violations,
        f"two holders: {measured['two_holders']}": measured["two_holders"],
        f"fenced: {measured['fenced']}": measured["fenced"] and not kind.fencing,
    }
    return [text for text, wrong in found.items() if wrong]


def result(planned: Planned, measured: dict[str, Any] | None, error: str = "") -> Result:
    """Make a fault's result; `measured` None where the setting did not heal."""
    wrong = [f"did not heal: {error}"] if measured is None else misses(KINDS[planned.kind], measured)
    return {"planned": asdict(planned), "measured": measured, "misses": wrong}


def line(found: Result) -> str:
    """Say in a line how a fault went."""
    planned, measured = found["planned"], found["measured"]
    mode = f"{planned['on_resume']}{', trimmed' if planned['trim'] else ''}"
    head = f"{planned['index']:4} {planned['kind']:26} shard {planned['shard']:2} {mode:13}"
    if measured is None:
        return f"{head} MISS {found['misses'][0]}"
    window = measured["window"]
    figures = (
        f"sent {window['sent']:6} lost {window['lost_count']} told {window['told']} twice {window['twice_count']}"
        f" identifies {measured['identifies']} silence {window['silence']:5.1f} s healed {measured['heal']:5.1f} s"
    )
    return f"{head} {figures}{''.join(f' MISS {miss}' for miss in found['misses'])}"


def append(file: Path, found: Result) -> None:
    """Write a result down."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        out.write(json.dumps(found) + "\n")


def read(file: Path) -> list[Result]:
    """Read the results of an earlier run; a last line that was cut off is removed."""
    if not file.exists():
        return []
    text = file.read_text()
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        file.write_text(text)
    return [json.loads(line) for line in text.splitlines()]


def table(results: Iterable[Result]) -> str:
    """Give the Markdown table: a row a kind, and the sums."""
    by_kind: dict[str, list[Result]] = defaultdict(list)
    for found in results:
        by_kind[found["planned"]["kind"]].append(found)
    rows = [_row(name, by_kind[name]) for name in KINDS if name in by_kind]
    every = [found for some in by_kind.values() for found in some]
    return "\n".join(_markdown([_HEAD, ("---",) + ("---:",) * (len(_HEAD) - 1), *rows, _row("**all**", every)]))


def _row(name: str, results: list[Result]) -> tuple[str, ...]:
    measured = [found["measured"] for found in results if found["measured"] is not None]
    windows = [one["window"] for one in measured]
    sums = [
        str(sum(window[key] for window in windows)) for key in ("sent", "received", "lost_count", "told", "twice_count")
    ]
    worst = [_most(window[key] for window in windows) for key in ("silence", "delay_most")]
    return (
        name,
        str(len(results)),
        *sums,
        str(sum(one["identifies"] for one in measured)),
        *worst,
        _most(one["heal"] for one in measured),
        str(sum(bool(found["misses"]) for found in results)),
    )


def _most(values: Iterable[float]) -> str:
    return f"{max(values, default=0.0):.1f}"


def _markdown(rows: list[tuple[str, ...]]) -> Iterator[str]:
    return (f"| {' | '.join(row)} |" for row in rows)
