"""Which device a name means: this machine, a profile, or a file that another machine wrote."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from pocketlm.advise.device.device import Device, from_json, plain
from pocketlm.advise.device.here import this_device
from pocketlm.advise.device.profiles import profiles
from pocketlm.errors import NotFoundError, RequestError

_LARGEST_FILE = 1 << 20


def find_device(text: str, *, probe: bool = True, refresh: bool = False) -> Device:
    """The device that ``text`` names.

    Args:
        text: "this", the name of a profile, or the path of a file that ``pocketlm device --json``
            wrote: anything with a slash or the ending .json.
        probe, refresh: of this machine, see ``this_device``.

    Raises NotFoundError with suggestions for an unknown name, RequestError for a file that
    describes no device.
    """
    if text == "this":
        return this_device(probe=probe, refresh=refresh)
    if "/" in text or "\\" in text or text.lower().endswith(".json"):
        return read_device(Path(text).expanduser())
    known = profiles()
    found = known.get(text.lower())
    if found is None:
        close = difflib.get_close_matches(text.lower(), known, n=3, cutoff=0.4)
        meant = f"Did you mean {_either(close)}? " if close else ""
        raise NotFoundError(
            f"there is no device '{text}'",
            hint=f"{meant}'pocketlm device --list' has every profile.",
        )
    return found


def read_device(path: Path) -> Device:
    """The device that a file describes, by the file's name where it was "this" when it wrote it."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise NotFoundError("there is no such file of a device", path=path) from None
    except (OSError, ValueError) as error:
        raise RequestError(f"the file of a device cannot be read: {error}", path=path) from error
    if len(data) > _LARGEST_FILE:
        raise RequestError(
            f"a file of more than {_LARGEST_FILE:,} bytes describes no device", path=path
        )
    found = from_json(data, str(path))
    return replace(found, name=plain(path.stem)) if found.name == "this" else found


def _either(names: list[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
