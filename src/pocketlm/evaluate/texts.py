"""The user's text files: read as UTF-8, exactly as they are, and told apart by a hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pocketlm.errors import NotFoundError, RequestError

# Metadata of a file that was calibrated: the hashes of the texts that it was fitted to.
CALIBRATION_KEY = "pocketlm.calibration.sha256"


def read_utf8(path: Path) -> str:
    """The text of a file, line ends as they stand.

    Raises NotFoundError where there is no file, RequestError for a folder and for bytes that are
    not UTF-8, naming the first of them.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"the text is not UTF-8: byte 0x{error.object[error.start]:02x}",
            hint="Convert it first: 'iconv -f latin1 -t utf-8 FILE', with the encoding it has.",
            path=path,
            offset=error.start,
        ) from error
    except FileNotFoundError as error:
        raise NotFoundError("there is no such file", path=path) from error
    except IsADirectoryError as error:
        raise RequestError("a text file is wanted, this is a folder", path=path) from error


def text_hash(text: str) -> str:
    """SHA-256 of a text without the white space around it, in hexadecimal."""
    return hashlib.sha256(text.strip().encode()).hexdigest()
