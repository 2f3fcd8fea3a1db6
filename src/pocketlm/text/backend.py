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
def encode_guard(length: int) -> Iterator[None]:
    """Turns a failure to encode a text of `length` characters into a RequestError."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise RequestError(
            f"the text has a lone surrogate at character {error.start:,}: not valid Unicode"
        ) from error
    except BaseException as error:
        if isinstance(error, Exception) or _is_panic(error):
            raise RequestError(
                f"a text of {length:,} characters cannot be tokenized: {error}",
                hint="Split it into shorter texts.",
            ) from error
        raise
