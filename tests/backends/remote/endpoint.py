"""A chat-completions endpoint on this machine, that answers and fails as real ones do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    """What is answered: a status with headers, and the body in parts."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    parts: Sequence[bytes] = ()
    hold: threading.Event | None = None  # waited for before the last part
    cut: bool = False  # end the connection without the body's end


Answer = Callable[[Asked], Reply]


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(text: str, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return event({"model": "phi-4-2025", "choices": [choice], **more})


def stream(*texts: str, finish: str = "stop", usage: object = USAGE) -> Reply:
    """As Azure streams: first the verdict on the prompt, then the text, then the usage."""
    parts = [event({"choices": [], "prompt_filter_results": []}), b": keep-alive\n\n"]
    parts += [delta(text) for text in texts]
    parts += [delta("", finish), event({"choices": [], "usage": usage}), b"data: [DONE]\n\n"]
    return Reply(headers={"Content-Type": "text/event-stream; charset=utf-8"}, parts=parts)


def document(value: object, status: int = 200, **headers: str) -> Reply:
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, {"Content-Type": "application/json"} | names, [json.dumps(value).encode()])


class Endpoint:
    """``answers`` are given one after the other, the last one for ever."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.answers: list[Answer | Reply] = [stream("Hel", "lo")]

    @property
    def ref(self) -> str:
        return f"openai:{self.url}/v1#phi-4"

    def next(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return answer if isinstance(answer, Reply) else answer(asked)


@contextmanager
def running() -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                self._answer(endpoint.next(Asked(self.command, self.path, headers, body)))
            except OSError:
                self.close_connection = True

        do_GET = do_POST

        def _answer(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number, part in enumerate(reply.parts, 1):
                if reply.hold is not None and number == len(reply.parts):
                    reply.hold.wait(20)
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                self.wfile.flush()
            if reply.cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # the client has gone

    with Server(("127.0.0.1", 0), Handler) as server:
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        yield endpoint
        server.shutdown()
        thread.join()
