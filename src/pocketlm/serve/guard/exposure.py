"""What must be so before a server takes its first connection."""

from __future__ import annotations

import ipaddress
import logging
import ssl
from typing import NoReturn

from pocketlm.errors import RequestError
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.guard.hosts import check_names, origin
from pocketlm.serve.guard.keys import KeyFile

_log = logging.getLogger(__name__)


def check_exposure(config: ServeConfig, keys: KeyFile) -> None:
    """Raises RequestError for a server that others could use without a key, and for names, origins
    or certificates that make no sense; ModelFileError for a broken file of keys.
    """
    check_names(config.hosts)
    for text in config.origins:
        origin(text)
    check_tls(config)
    known = keys.all()
    if is_loopback(config.host):
        return
    if not known and not config.insecure:
        raise RequestError(
            f"{config.host} can be reached by other machines, and there is no API key",
            hint="Make one with 'pocketlm key create NAME', or listen on 127.0.0.1. --insecure "
            "serves everybody who can reach this machine.",
        )
    if not known:
        _log.warning(
            "INSECURE: everybody who can reach %s port %d may run, pull and delete models: there "
            "is no API key and --insecure was given",
            config.host,
            config.port,
        )
    if config.tls_cert is None:
        _log.warning(
            "%s is reached without TLS: prompts, answers and API keys can be read on the way",
            config.host,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_tls(config: ServeConfig) -> None:
    """Raises RequestError for a certificate or key that a server cannot use."""
    cert, key = config.tls_cert, config.tls_key
    if cert is None and key is None:
        return
    if cert is None or key is None:
        raise RequestError("--tls-cert and --tls-key are needed both or not at all")
    for path, what in ((cert, "certificate"), (key, "private key")):
        try:
            path.read_bytes()
        except OSError as error:
            raise RequestError(
                f"the {what} cannot be read: {error.strerror or error}", path=path
            ) from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, _no_password)
    except ssl.SSLError as error:
        why = {
            "KEY_VALUES_MISMATCH": "the private key is not the certificate's",
            "PEM_LIB": "one of them is not PEM, or does not hold what it should",
        }.get(error.reason or "", str(error))
        raise RequestError(
            f"TLS cannot be served with {cert} and {key}: {why}",
            hint="Give the certificate chain and its private key, both as PEM.",
        ) from error


def _no_password() -> NoReturn:
    raise RequestError(
        "the private key has a password", hint="Give --tls-key a key without one, chmod 600."
    )
