"""What a user wishes, and what that comes to: numbers that variants are held to.

A ``Wish`` is what was typed; ``terms`` turns it into ``Terms`` with the help of the rules and of
the device, and refuses what cannot be read, with suggestions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pocketlm import catalog
from pocketlm.advise.device import Device, find_device
from pocketlm.advise.recommend.rules import Rules, Use, rules
from pocketlm.errors import NotFoundError, RequestError
from pocketlm.settings import Settings
from pocketlm.units import parse_bytes, parse_tokens

LEAST_RAM = 64 << 20
ANY = "any"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is wanted of a model; None is left to the rules.

    Attributes:
        use: what for, as ``rules.toml`` names it; None is by the device.
        device: "this", the name of a profile, or a file of a device.
        ram: of the device, instead of its own: ``4GB`` (4 GiB, as RAM is sold) or bytes.
        min_speed: tokens/s of decoding at a full context.
        context: ``8k`` or tokens.
        license: licences or groups of them, with commas; None is any.
        lang: a language by its code (``es``) or name.
        offline: only models that are here; None is as the settings say.
    """

    use: str | None = None
    device: str | Device = "this"
    ram: str | int | None = None
    min_speed: float | None = None
    context: str | int | None = None
    license: str | None = None
    lang: str | None = None
    offline: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a wish comes to.

    Attributes:
        use_name, use: what for.
        base, device: the device, and with the RAM that was asked for.
        memory: bytes that the model and its process may take.
        room: in words, what is left to others.
        min_speed, context: limits.
        chosen: of ``min_speed`` and ``context`` those that the user gave.
        licences: that are allowed; None for any; ``licence`` is what the user called them.
        language: a code, or None.
        offline: only models that are here.
    """

    use_name: str
    use: Use
    base: Device
    device: Device
    memory: int
    room: str
    min_speed: float
    context: int
    chosen: frozenset[str]
    licences: frozenset[str] | None
    licence: str | None
    language: str | None
    offline: bool


def terms(wish: Wish) -> Terms:
    """Reads a wish. Raises RequestError or NotFoundError for what it cannot be."""
    known = rules()
    base = wish.device if isinstance(wish.device, Device) else find_device(wish.device)
    if base.rates is None:
        raise RequestError(
            f"nothing says how fast {base.name} reads and computes",
            hint="Write its file with 'pocketlm device --json' there, without --no-probe.",
        )
    device = base if wish.ram is None else with_ram(base, _ram(wish.ram))
    name = wish.use.lower() if wish.use is not None else _default_use(device, known)
    use = known.use.get(name)
    if use is None:
        raise _unknown("use", wish.use or name, known.use)
    if wish.min_speed is not None and not 0 < wish.min_speed <= 1e6:
        raise RequestError(
            f"the minimal speed is {wish.min_speed!r}, expected tokens a second above 0"
        )
    return Terms(
        use_name=name,
        use=use,
        base=base,
        device=device,
        memory=usable(device),
        room=room(device),
        min_speed=use.min_speed if wish.min_speed is None else float(wish.min_speed),
        context=use.context if wish.context is None else tokens(wish.context),
        chosen=frozenset(n for n in ("min_speed", "context") if getattr(wish, n) is not None),
        licences=_licences(wish.license, known),
        licence=wish.license,
        language=_language(wish.lang, known),
        offline=Settings.from_environment().offline if wish.offline is None else wish.offline,
    )


def with_ram(device: Device, ram: int) -> Device:
    """The device with other RAM, of which its system takes what it takes now, at most a share."""
    free = ram - _reserved(device, ram)
    return replace(device, ram=ram, ram_free=free, memory_quota=None, memory_limit="RAM")


def _reserved(device: Device, ram: int) -> int:
    most = int(rules().room.most_reserved * ram)
    whole = device.ram if device.memory_quota is None else min(device.ram, device.memory_quota)
    return min(max(0, whole - device.ram_free), most)


def ram_for(device: Device, needed: int) -> int:
    """The least RAM of such a device in which ``needed`` bytes are usable."""
    low, high = needed, 1 << 50
    while low < high:
        middle = (low + high) // 2
        if usable(with_ram(device, middle)) >= needed:
            high = middle
        else:
            low = middle + 1
    return low


def usable(device: Device) -> int:
    """Bytes that a model and its process may take."""
    return int(device.ram_free * (1 - rules().room.margin))


def room(device: Device) -> str:
    """In words, what of the memory is left to others."""
    whole = device.ram if device.memory_quota is None else min(device.ram, device.memory_quota)
    taken = max(0, whole - device.ram_free)
    return (
        f"{_gib(whole)} less {_gib(taken)} for the system and other programs, "
        f"and a margin of {100 * rules().room.margin:.0f} %"
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def tokens(context: str | int) -> int:
    """A context in tokens."""
    if isinstance(context, str):
        return parse_tokens(context, "the context")
    if isinstance(context, bool) or not 1 <= context <= 1 << 30:
        raise RequestError(f"the context is {context!r}, expected a number of tokens")
    return context


def _ram(ram: str | int) -> int:
    return parse_bytes(str(ram), "the RAM", least=LEAST_RAM, ram=True)


def _default_use(device: Device, known: Rules) -> str:
    return next(one.use for one in known.default_use if device.name.startswith(one.device))


def _licences(text: str | None, known: Rules) -> frozenset[str] | None:
    if text is None or text.strip().lower() == ANY:
        return None
    groups = {name: frozenset(names) for name, names in known.licences.items()}
    single = {entry.licence.lower() for entry in catalog.entries()}
    single |= {name for names in groups.values() for name in names}
    allowed: set[str] = set()
    for part in text.lower().split(","):
        name = part.strip()
        if name not in groups and name not in single:
            raise _unknown("licence", part.strip(), [*groups, *sorted(single)])
        allowed |= groups.get(name, {name})
    return frozenset(allowed)


def _language(text: str | None, known: Rules) -> str | None:
    if text is None:
        return None
    wanted = text.strip().lower()
    by_name = {name.lower(): code for code, name in known.languages.items()}
    code = by_name.get(wanted, wanted.replace("_", "-").partition("-")[0])
    if code not in known.languages:
        raise _unknown("language", text, [*by_name, *known.languages])
    return code


def _unknown(what: str, name: str, known: Iterable[str]) -> RequestError:
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    meant = f"Did you mean {' or '.join(repr(one) for one in close)}? " if close else ""
    shown = f"{', '.join(names[:20])}{' …' if len(names) > 20 else ''}"
    return NotFoundError(f"there is no {what} '{name}'", hint=f"{meant}There are {shown}.")
