"""``python -m pocketlm.serve.worker FD``: started by the front process, with its end of the channel
as an open file descriptor."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketlm.errors import PocketLMError
from pocketlm.serve.wire import error_record
from pocketlm.serve.worker.order import Order
from pocketlm.serve.worker.port import Port

if TYPE_CHECKING:
    from pocketlm.serve.worker.loading import Running

# The engine's thread waits this long for the lock that other threads of Python hold.
_SWITCH_S = 0.0005


def main(descriptor: int) -> None:
    """Opens, waits, loads, serves. Ends the process when the channel closes."""
    logging.basicConfig(format="%(levelname)s worker %(process)d: %(message)s")
    for number in (signal.SIGINT, signal.SIGTERM):  # the front process says when it is over
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_S)
    with suppress(OSError):  # where memory runs out, this goes rather than the front process
        Path("/proc/self/oom_score_adj").write_text("500")
    port = Port(socket.socket(fileno=descriptor))
    messages = port.messages()
    with suppress(ConnectionError):  # the front process has gone meanwhile
        running = _load(port, messages)
        if running is not None:
            _serve(running, port, messages)


def _load(port: Port, messages: Iterator[dict[str, Any]]) -> Running | None:
    """The model that is ordered; None where that failed or is not wanted any more."""
    from pocketlm.serve.worker.loading import load, open_order

    first = next(messages, None)
    if first is None:
        return None
    order = Order(**first["open"])
    try:
        opened = open_order(order)
        port.send({"plan": opened.memory})
        if next(messages, None) is None:
            return None
        running = load(order, opened)
    except PocketLMError as error:
        port.send({"failed": error_record(error)})
        return None
    port.send({"ready": {"facts": running.facts, "kv_tokens": running.kv_tokens}})
    return running


def _serve(running: Running, port: Port, messages: Iterator[dict[str, Any]]) -> None:
    from pocketlm.serve.worker.asking import Asking
    from pocketlm.serve.worker.loop import EngineLoop

    loop = EngineLoop(running.engine, port, running.texts.tokenizer.token_bytes)
    asking = Asking(running, loop, port)

    def read() -> None:
        for message in messages:
            asking.put(message)

    def populate() -> None:
        """Takes the promised memory of the cache while nobody waits for it."""
        if sys.platform == "linux":  # where a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        running.engine.runner.populate_cache()

    threading.Thread(target=populate, daemon=True).start()
    for work in (read, asking.run):
        threading.Thread(target=_until_the_end, args=(work,), daemon=True).start()
    _until_the_end(loop.run)


def _until_the_end(work: Callable[[], None]) -> None:
    """Whichever thread comes to its end, or finds the channel closed, ends the process."""
    try:
        work()
    except ConnectionError:
        pass
    except BaseException:
        logging.exception("the worker failed")
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
