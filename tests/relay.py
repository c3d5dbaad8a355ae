"""A TCP proxy before a server, which stalls, delays, loses and cuts what passes, for the tests of failing networks."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.settings import Settings

_PLAIN = {"sslmode": "disable", "gssencmode": "disable"}


def connected(host: str, port: int) -> socket.socket:
    """Connect to a server as libpq does: in a folder, or at an address."""
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    end = socket.socket(socket.AF_UNIX)
    end.connect(f"{host}/.s.PGSQL.{port}")
    return end


def cut(end: socket.socket) -> None:
    """Close a connection both ways, whoever else has it."""
    with closing(end), suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


class Way:
    """One direction of a relay.

    Attributes:
        flows: While it is clear, no bytes pass, and no end of a connection either.
        delay: Seconds that everything takes longer.
        hears: Called with what wants to pass.
    """

    def __init__(self) -> None:
        self.flows = threading.Event()
        self.flows.set()
        self.delay = 0.0
        self.hears: Callable[[bytes], object] = bytes

    def wait(self, data: bytes) -> None:
        """Wait until this may pass."""
        self.hears(data)
        self.flows.wait()
        time.sleep(self.delay)


class Relay:
    """Passes on what the clients of a port of this machine and a server say to each other, until it is closed.

    Args:
        host: The server's.
        port: The server's.
        listener: A bound socket for the clients; by default there is a new one.

    Attributes:
        port: The port for clients.
        asks: The way from the clients to the server.
        answers: The way back.
    """

    def __init__(self, host: str, port: int | str, listener: socket.socket | None = None) -> None:
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0)) if listener is None else listener
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self.asks, self.answers = Way(), Way()
        self._needle: tuple[bytes, bool] | None = None
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def before(self, settings: Settings) -> Settings:
        """Return the settings of its server with this address."""
        return attrs.evolve(settings, host="127.0.0.1", port=self.port, params=_PLAIN)

    def stall(self) -> None:
        """Pass nothing on: connections stay open, and nobody answers."""
        for way in (self.asks, self.answers):
            way.flows.clear()

    def flow(self) -> None:
        """Pass everything on again, also what has come in the meantime."""
        for way in (self.asks, self.answers):
            way.flows.set()

    def cut(self) -> None:
        """Cut all connections."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def lose(self, needle: str, *, sent: bool = True) -> None:
        """Cut the next connection on which a client sends something.

        Args:
            needle: What the client sends.
            sent: Whether the server gets that, and answers it, before the connection ends.
        """
        self._needle = (needle.encode(), sent)

    def close(self) -> None:
        """Cut everything, and accept nobody any more."""
        cut(self._listener)
        self.flow()
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or each reply waits 40 ms for an ACK
                try:
                    server = connected(*self._server)
                except OSError:  # it does not run
                    cut(client)
                    continue
                self._ends += [client, server]
                losing = threading.Event()
                for work in (self._ask, self._answer):
                    self._threads.append(threading.Thread(target=work, args=(client, server, losing)))
                    self._threads[-1].start()

    def _ask(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                self.asks.wait(data)
                if self._needle is not None and self._needle[0] in data:
                    sent, self._needle = self._needle[1], None
                    losing.set()
                    if not sent:
                        break
                server.sendall(data)
            self.asks.flows.wait()
        cut(server)

    def _answer(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while (data := server.recv(65536)) and not losing.is_set():
                self.answers.wait(data)
                client.sendall(data)
            self.answers.flows.wait()
        cut(client)
