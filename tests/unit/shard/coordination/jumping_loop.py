"""An event loop whose time jumps to the next timer as soon as nothing else is to be done: tests wait for nothing."""

import asyncio
import selectors


class _Selector(selectors.DefaultSelector):
    """Never blocks: what it would have waited is added to the loop's time."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        found = super().select(0)
        if not found and timeout is None:
            raise RuntimeError("nothing will ever happen: everything waits, and no timer is set")
        if not found:
            self.now += max(timeout, 0)
        return found


class JumpingLoop(asyncio.SelectorEventLoop):
    """Time begins at 0 and moves only by timers."""

    def __init__(self):
        self._times = _Selector()
        super().__init__(self._times)

    def time(self):
        return self._times.now
