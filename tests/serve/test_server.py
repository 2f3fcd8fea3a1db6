"""A whole server: its start, its verbs, and every way that it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine.tiny_file import write_tiny_model
from pocketlm.cli.main import main
from pocketlm.store import Store

from .running import RunningServer, alive, running_server, start, wait

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

QUESTION = {
    "model": "tiny",
    "max_tokens": 20,
    "stream": True,
    "messages": [{"role": "user", "content": "hi"}],
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """With one model, loaded."""
    home = tmp_path / "served"
    Store(home).import_path(write_tiny_model(tmp_path / "tiny.gguf"), "tiny", copy=True)
    with running_server(home, "tiny", "--drain", "20") as running:
        running.wait_ready()
        yield running


def stream(server: RunningServer, events: list[str]) -> threading.Thread:
    """Asks in another thread; the names of the events as they come."""

    def read() -> None:
        url = server.url + "/v1/messages"
        with httpx.stream("POST", url, json=QUESTION, timeout=60) as answer:
            lines = answer.iter_lines()
            events.extend(line[7:] for line in lines if line.startswith("event: "))

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def under_way(server: RunningServer, events: list[str]) -> tuple[threading.Thread, int]:
    """A stream whose worker has been halted in the middle of it."""
    (worker,) = server.workers()
    os.kill(worker, signal.SIGSTOP)
    thread = stream(server, events)
    wait(lambda: server.get("/admin/models").json()["models"][0]["waiting"] == 1)
    return thread, worker


def test_it_says_where_and_what_it_serves(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.get("/health").json() == {"status": "ok"}
    assert server.get("/ready").json()["loaded"] == ["tiny:latest"]
    assert main(["ps", "--url", server.url, "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)
    assert (model["name"], model["pinned"], model["context"]) == ("tiny:latest", True, 256)
    assert main(["ps", "--url", server.url.removeprefix("http://")]) == 0
    assert "pinned" in capsys.readouterr().out


def test_the_front_process_computes_nothing(server: RunningServer) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "_native" not in maps
    assert "numpy" not in maps


def test_stop_unloads_a_model_and_ends_a_server(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POCKETLM_HOST", server.url)
    workers = server.workers()
    assert main(["stop", "tiny"]) == 0
    assert not alive(workers)
    assert main(["ps"]) == 0
    assert capsys.readouterr().out == "no model is loaded\n"
    assert main(["stop", "nosuch"]) == 2
    assert "there is no model nosuch" in capsys.readouterr().err
    assert main(["stop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"stopping": True}
    assert server.end()[0] == 0
    assert main(["ps"]) == 1
    assert "'pocketlm serve' starts one" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_answers_end_and_refuses_new_ones(server: RunningServer, number: int) -> None:
    events: list[str] = []
    thread, worker = under_way(server, events)
    server.process.send_signal(number)
    wait(lambda: server.get("/ready").status_code == 503)
    assert server.get("/ready").json()["reason"] == "the server is shutting down"
    refused = server.post("/v1/messages", QUESTION)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert server.get("/health").status_code == 200
    os.kill(worker, signal.SIGCONT)
    thread.join()
    assert events[-1] == "message_stop"
    assert server.end()[0] == 0
    assert not alive([worker])


def test_a_second_signal_cuts_answers_with_an_error(server: RunningServer) -> None:
    events: list[str] = []
    thread, worker = under_way(server, events)
    server.process.send_signal(signal.SIGTERM)
    wait(lambda: server.get("/ready").status_code == 503)
    server.process.send_signal(signal.SIGTERM)
    thread.join()
    assert "message_stop" not in events
    assert server.end()[0] == 0
    assert not alive([worker])


def test_a_worker_that_is_killed_costs_its_answers_only(server: RunningServer) -> None:
    events: list[str] = []
    thread, worker = under_way(server, events)
    os.kill(worker, signal.SIGKILL)
    thread.join()
    assert "message_stop" not in events
    server.wait_ready()
    assert server.post("/v1/messages", {**QUESTION, "stream": False}).status_code == 200
    assert server.workers() != [worker]


def test_workers_end_when_the_front_process_is_killed(server: RunningServer) -> None:
    workers = server.workers()
    server.process.kill()
    wait(lambda: not alive(workers))
    assert Store(server.home).verify("tiny").problems == ()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        process = start(tmp_path, "--port", str(other.getsockname()[1]))
        _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "cannot listen on 127.0.0.1 port" in said


def test_a_model_that_does_not_load_ends_the_server(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "broken.gguf")
    path.write_bytes(path.read_bytes()[:2000])
    process = start(tmp_path, str(path), "--port", "0")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "broken.gguf" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("--memory", "lots"),
        ("--memory", "6XB"),
        ("--keep-alive", "soon"),
        ("--alias", "a"),
        ("--parallel", "0"),
        ("nosuch",),
    ],
)
def test_wrong_options_are_said_before_it_listens(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--port", "0", *arguments]) in (1, 2)
    assert arguments[-1].strip("-") in capsys.readouterr().err
