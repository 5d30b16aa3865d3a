"""A TCP proxy that a test can cut, silence and restore: the network between a pod and the API server."""

import asyncio
import contextlib


class Proxy:
    """Forwards connections on loopback to `host:port`."""

    def __init__(self, host, port):
        self._target = host, port
        self._server = None
        self._tasks = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.port = 0
        self.accepted = 0

    async def start(self):
        """Listen, on the same port as before where there was one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self):
        """Refuse connections, and drop those that stand."""
        self._server.close()
        for task in self._tasks:
            task.cancel()

    def silence(self):
        """Keep connections, and take new ones, but let no byte through."""
        self._flows.clear()

    def sound(self):
        """Let bytes through again."""
        self._flows.set()

    async def close(self):
        """Stop for good."""
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._join(reader, writer)
        writer.close()

    async def _join(self, reader, writer):
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, far_writer))
                both.create_task(self._copy(far_reader, writer))
        except* OSError:
            pass
        finally:
            far_writer.close()

    async def _copy(self, reader, writer):
        while data := await reader.read(65536):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        writer.close()
