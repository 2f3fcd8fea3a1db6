"""Errors of the `tokenizers` library as ours.

The library is written in Rust; a broken file or an absurd text raises plain `Exception`s and, where
the Rust code panics, a `PanicException`, which is not even an `Exception`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pocketlm.errors import ModelFileError, RequestError


def _is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


@contextmanager
def build_guard(field: str) -> Iterator[None]:
    """Turns any failure to build a tokenizer into a ModelFileError that names `field`."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or _is_panic(error):
            raise ModelFileError(f"{field} does not make a tokenizer: {error}") from error
        raise


@contextmanager
def encode_guard(text: str) -> Iterator[None]:
    """Turns a failure to encode `text` into a RequestError."""
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, Exception) or _is_panic(error)):
            raise
        try:
            text.encode()
        except UnicodeEncodeError as surrogate:
            raise RequestError(
                f"the text has a lone surrogate at character {surrogate.start:,}: not valid Unicode"
            ) from surrogate
        raise RequestError(
            f"a text of {len(text):,} characters cannot be tokenized: {error}",
            hint="Split it into shorter texts.",
        ) from error
