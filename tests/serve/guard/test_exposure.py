"""When a server refuses to start."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pocketlm.errors import RequestError
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.guard.exposure import check_exposure
from pocketlm.serve.guard.keys import KeyFile, make_key


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path, tmp_path / "locks")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "::1"])
def test_this_machine_needs_no_key(keys: KeyFile, host: str) -> None:
    check_exposure(ServeConfig(host=host), keys)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "box.example", ""])
def test_others_need_one(keys: KeyFile, host: str) -> None:
    with pytest.raises(RequestError, match="pocketlm key create"):
        check_exposure(ServeConfig(host=host), keys)
    keys.add(make_key("a")[0])
    check_exposure(ServeConfig(host=host), keys)


def test_insecure_is_said_loudly(keys: KeyFile, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_exposure(ServeConfig(host="0.0.0.0", insecure=True), keys)
    assert "INSECURE" in caplog.text


@pytest.mark.parametrize(
    "options", [{"origins": ("*",)}, {"hosts": ("*",)}, {"tls_cert": Path("a.pem")}]
)
def test_options_that_make_no_sense(keys: KeyFile, options: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        check_exposure(ServeConfig(**options), keys)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return certificate(tmp_path, "one")


def certificate(folder: Path, name: str, *more: str) -> tuple[Path, Path]:
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subject = ("-subj", "/CN=localhost", "-days", "2")
    made = ("-newkey", "rsa:2048", "-keyout", str(key), "-out", str(cert))
    secret = more or ("-nodes",)
    command = ["openssl", "req", "-x509", *made, *subject, *secret]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    return cert, key


def test_certificates_are_looked_at_early(
    keys: KeyFile, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    def check(cert: Path, key: Path) -> None:
        check_exposure(ServeConfig(tls_cert=cert, tls_key=key), keys)

    check(*pair)
    other = certificate(tmp_path, "two")
    locked = certificate(tmp_path, "locked", "-passout", "pass:secret")
    with pytest.raises(RequestError, match="not the certificate's"):
        check(pair[0], other[1])
    with pytest.raises(RequestError, match="password"):
        check(*locked)
    with pytest.raises(RequestError, match="cannot be read"):
        check(pair[0], tmp_path / "missing")
    with pytest.raises(RequestError, match="PEM"):
        check(pair[1], pair[0])
