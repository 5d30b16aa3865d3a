"""A real RabbitMQ, its Erlang run out of the cache."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import asynccontextmanager

import aio_pika

from component.ports import free_port
from component.sinks.server import Server


class RabbitServer(Server):
    """RabbitMQ with an epmd of its own; its queues outlive its process."""

    def __init__(self, program, folder):
        super().__init__(program, folder)
        self._epmd_port, self._nodes_port = free_port(), free_port()
        self._epmd = None
        self._password = "guest"
        self._tests = None

    @property
    def url(self):
        return f"amqp://127.0.0.1:{self.port}"

    def prepare(self, **settings):
        self._password = settings.get("default_pass", self._password)
        config = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "loopback_users": "none",
            "log.console": "true",
            "log.console.level": "warning",
            "log.file": "false",
            **settings,
        }
        (self._folder / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in config.items()))
        (self._folder / "plugins").write_text("[].")
        env = self._environment()
        if self._epmd is None:
            epmd = [f"{env['BINDIR']}/epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = subprocess.Popen(epmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return [next(self._program.glob("usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server"))], env

    def _environment(self):
        """Lead Erlang and RabbitMQ to their files: Debian's wrappers know the system's only."""
        root = self._program / "usr/lib/erlang"
        programs = self._folder / "bin"
        programs.mkdir(exist_ok=True)
        erl = programs / "erl"
        erl.write_text('#!/bin/sh\nexec "$BINDIR/erlexec" "$@"\n')
        erl.chmod(0o755)
        return {
            "ROOTDIR": str(root),
            "BINDIR": str(next(root.glob("erts-*/bin"))),
            "EMU": "beam",
            "PROGNAME": "erl",
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(self._folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"rabbit{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._nodes_port),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "logs"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2",
            "RUNNING_UNDER_SYSTEMD": "1",  # the script becomes the server instead of waiting for it
        }

    async def set_memory_limit(self, part):
        """Say which part of the machine's memory RabbitMQ may use before it blocks publishers."""
        tool = next(self._program.glob("usr/lib/rabbitmq/lib/*/sbin/rabbitmqctl"))
        command = [tool, "set_vm_memory_high_watermark", part]
        await asyncio.to_thread(subprocess.run, command, env=self._environment(), check=True, capture_output=True)

    async def start_secure(self, folder):
        """Open a door by TLS that asks for certificates; the tests keep another."""
        self._tests, self._secured = free_port(), folder
        files = {"cacertfile": "ca.crt", "certfile": "tls.crt", "keyfile": "tls.key"}
        secure = {f"ssl_options.{name}": str(folder / file) for name, file in files.items()}
        secure |= {"ssl_options.verify": "verify_peer", "ssl_options.fail_if_no_peer_cert": "true"}
        doors = {"listeners.tcp.1": f"127.0.0.1:{self._tests}", "listeners.ssl.1": f"127.0.0.1:{self.port}"}
        await self.start(**doors, **secure)

    def close(self):
        """End all of it."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()

    @asynccontextmanager
    async def channel(self):
        """Give a channel of aio-pika: another program's view."""
        connection = await aio_pika.connect(host="127.0.0.1", port=self._tests or self.port, password=self._password)
        async with connection:
            yield await connection.channel()

    async def add_queue(self, name, *, keys=("#",), exchange="discord", **arguments):
        """Make a durable queue, bound to a topic exchange."""
        async with self.channel() as channel:
            source = await channel.declare_exchange(exchange, "topic", durable=True)
            queue = await channel.declare_queue(name, durable=True, arguments=arguments or None)
            for key in keys:
                await queue.bind(source, key)

    async def stored(self, name):
        """Give all messages of a queue, in order, and take them away."""
        found = []
        async with self.channel() as channel:
            queue = await channel.get_queue(name)
            while (message := await queue.get(fail=False, no_ack=True)) is not None:
                found.append(message)
        return found
