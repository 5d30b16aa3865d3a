"""A race for one bucket, simulated: contenders with own clocks and arbitrary delays, the pure rules, and Discord's view.

Delays are given as functions that are asked once for each message. All times are seconds.
"""

import heapq
import itertools
from dataclasses import dataclass, field

from shardwright_shard.coordination import bucket as rule
from shardwright_shard.coordination.bucket import LeaseState, Sight


@dataclass(kw_only=True)
class Delays:
    """How long things take: swap to the API server, answer back, watch event, and IDENTIFY to Discord."""

    swap: callable
    answer: callable
    watch: callable
    discord: callable
    dawdle: callable
    """Which part of the time that is left until IDENTIFY must be sent passes before it is."""


@dataclass
class Contender:
    """A shard that identifies `left` more times. `clock` is how far its clock is off."""

    shard: int
    clock: float
    left: int
    sight: Sight | None = None
    swapping: bool = False
    sent_at: float = 0.0


@dataclass
class Race:
    """Runs contenders until all have identified, or for `end` seconds."""

    contenders: list[Contender]
    delays: Delays
    window: float = rule.WINDOW
    max_concurrency: int = 1
    end: float = 400.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    swaps: int = 0
    lost: int = 0

    def run(self):
        """Give the times at which identifies reached Discord, with their shards."""
        self.lease = LeaseState("0", "")
        self.now = 0.0
        self.queue = []
        self.numbers = itertools.count()
        self._tell(self.lease)
        while self.queue and self.now < self.end:
            self.now, _, act, arguments = heapq.heappop(self.queue)
            act(*arguments)
        return sorted(self.arrivals)

    def _after(self, delay, act, *arguments):
        heapq.heappush(self.queue, (self.now + max(delay, 0.0), next(self.numbers), act, arguments))

    def _tell(self, lease):
        for contender in self.contenders:
            self._after(self.delays.watch(), self._observe, contender, lease)

    def _observe(self, contender, lease):
        local = self.now + contender.clock
        contender.sight = sight = rule.see(contender.sight, lease, local)
        due = rule.next_try_at(sight, shard=contender.shard, max_concurrency=self.max_concurrency, window=self.window)
        self._after(due - local, self._try, contender, sight)

    def _try(self, contender, sight):
        if contender.sight == sight and contender.left and not contender.swapping:
            contender.swapping = True
            contender.sent_at = self.now + contender.clock
            self._after(self.delays.swap(), self._commit, contender, sight.lease)

    def _commit(self, contender, expected):
        won = self.lease == expected
        self.swaps += won
        self.lost += not won
        if won:
            self.lease = LeaseState(str(int(expected.version) + 1), rule.identity("pod", contender.shard))
            self._tell(self.lease)
        self._after(self.delays.answer(), self._answered, contender, self.lease, won)

    def _answered(self, contender, lease, won):
        contender.swapping = False
        if not won:
            contender.sight = None
        local = self.now + contender.clock
        until = rule.send_until(contender.sent_at, local)
        if won and until is not None:
            contender.left -= 1
            self._after((until - local) * self.delays.dawdle(), self._identify, contender)
        self._observe(contender, lease)

    def _identify(self, contender):
        self.arrivals.append((self.now + self.delays.discord(), contender.shard))
