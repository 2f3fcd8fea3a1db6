"""Puts the guard around the application, and before what its routes work with."""

from __future__ import annotations

from dataclasses import replace

from fastapi import FastAPI

from pocketlm.serve.guard.bodies import Bodies
from pocketlm.serve.guard.doors import Doors
from pocketlm.serve.guard.exposure import is_loopback
from pocketlm.serve.guard.hosts import Hosts
from pocketlm.serve.guard.keys import KeyFile
from pocketlm.serve.guard.models import GuardedFleet
from pocketlm.serve.guard.shelf import GuardedStore
from pocketlm.serve.services import Services


def key_file(services: Services) -> KeyFile:
    """The keys of the server's store."""
    return KeyFile(services.store.home, services.store.shelf.locks)


def guarded(services: Services) -> Services:
    """What routes may have: the same models and store, as far as the request's key goes."""
    config, metrics = services.config, services.metrics
    store = GuardedStore(services.store, config)
    metrics.watch(services.fleet.loaded)
    fleet = GuardedFleet(services.fleet, config, store.permits, metrics)
    return replace(services, fleet=fleet, store=store)


def install(app: FastAPI, services: Services) -> None:
    """The middlewares; each stands before those that were added earlier."""
    config, metrics = services.config, services.metrics
    alone = is_loopback(config.host) or config.insecure
    app.add_middleware(Bodies, config.max_body, metrics)
    app.add_middleware(Doors, key_file(services), metrics, alone=alone)
    app.add_middleware(Hosts, config, metrics)
