"""A real Redis, everything on disk before it answers."""

from __future__ import annotations

import redis.asyncio as redis

from component.sinks.server import Server


class RedisServer(Server):
    """Redis with an append-only file; its data outlives its process."""

    tls = False

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def prepare(self, **settings):
        config = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": self._folder,
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "always",
            "client-query-buffer-limit": "1gb",
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        path = self._folder / "redis.conf"
        path.write_text("".join(f"{name} {value}\n" for name, value in config.items()))
        libraries = self._program / "usr/lib/x86_64-linux-gnu"
        return [self._program / "usr/bin/redis-server", path], {"LD_LIBRARY_PATH": str(libraries)}

    def client(self, **options):
        if self.tls:
            files = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "tls.crt", "ssl_keyfile": "tls.key"}
            folder = self._folder.parent / "server"
            options |= {"ssl": True, **{name: str(folder / file) for name, file in files.items()}}
        return redis.Redis(host="127.0.0.1", port=self.port, **options)

    async def stored(self, key, **options):
        """Give the entries of a stream, in order, as dicts of bytes."""
        async with self.client(**options) as client:
            return [fields for _, fields in await client.xrange(key)]
