"""The worker's end of the channel: one thread reads, any may send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

from pocketlm.errors import PocketLMError
from pocketlm.serve.channel import Frames, frame
from pocketlm.serve.wire import error_record

_READ = 1 << 16


class Port:
    """Sends and receives messages over a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the front process says, until it closes the channel or is gone."""
        frames = Frames()
        while True:
            try:
                data = self._socket.recv(_READ)
            except ConnectionError:
                return
            if not data:
                return
            yield from frames.feed(data)

    def send(self, message: dict[str, Any]) -> None:
        """Waits while the front process does not read. Raises OSError when it is gone."""
        data = frame(message)
        with self._sending:
            self._socket.sendall(data)

    def fail(self, id: int, error: Exception) -> None:
        """Says that a request cannot be answered."""
        if not isinstance(error, PocketLMError):
            error = PocketLMError(f"the request failed: {type(error).__name__}: {error}")
        self.send({"error": {"id": id, **error_record(error)}})
