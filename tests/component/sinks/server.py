"""A real server as a process on loopback: started, killed as a lost node would, frozen, and started again."""

from __future__ import annotations

import signal
import socket
import subprocess
from contextlib import suppress

from component.ports import free_port
from component.sinks.waiting import until

START_WITHIN = 60.0


class Server:
    """One server on a port of its own, in a folder that outlives its process."""

    def __init__(self, program, folder):
        self.port = free_port()
        self._program = program
        self._folder = folder
        self._process = None

    async def start(self, **settings):
        """Start with these settings, and wait until it serves."""
        argv, env = self.prepare(**settings)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: ASYNC220 - a moment
        await until(self._serves, within=START_WITHIN)
        return self

    def prepare(self, **settings):
        """Write the configuration; give the command line and the environment."""
        raise NotImplementedError

    def answers(self):
        """Tell whether it serves: by default, whether it accepts connections."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def kill(self):
        """End it as a lost node would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self):
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    def _serves(self):
        if self.answers():
            return True
        assert self._process.poll() is None, (self._folder / "log").read_text()[-4000:]
        return False
