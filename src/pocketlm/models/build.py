"""From a ModelSpec to a native Executor: the program is lowered and the weights are packed.

This is where a model's weights enter memory. They are packed one matrix at a time from views of the
mapped file, whose pages are let go on the way. So the peak is the packed model and 16 MiB; what
that will be is said beforehand by ``memory.core_memory``.
"""

from __future__ import annotations

from pocketlm import _native
from pocketlm.errors import ModelFileError
from pocketlm.models.program import Floats, lower
from pocketlm.models.sources import checked_floats
from pocketlm.models.spec import ModelSpec
from pocketlm.progress import Progress, ProgressCallback, silent


class _Packing:
    """The weights of one program, packed as they are asked for, with progress in parameters."""

    def __init__(self, spec: ModelSpec, threads: int, progress: ProgressCallback) -> None:
        self._spec = spec
        self._threads = threads
        self._progress = progress
        self._done = 0

    def matrix(self, name: str) -> _native.Weight:
        matrix = self._spec.source.matrix(name)
        try:
            weight = _native.Weight.pack(
                int(matrix.type),
                matrix.rows,
                matrix.cols,
                matrix.data,
                matrix.row_map,
                self._threads,
                self._spec.source.release_pages,
            )
        except ValueError as error:
            raise ModelFileError(f"tensor '{name}': {error}", path=self._spec.path) from error
        self._report(matrix.rows * matrix.cols)
        return weight

    def vector(self, name: str) -> Floats:
        values = checked_floats(name, self._spec.source.vector(name), self._spec.path)
        self._report(values.size)
        return values

    def _report(self, parameters: int) -> None:
        self._done += parameters
        self._progress(Progress("pack weights", self._done, self._spec.parameters))


def build_executor(
    spec: ModelSpec, *, threads: int, progress: ProgressCallback = silent
) -> _native.Executor:
    """An executor with the program and its weights, for ``threads`` threads; no KV cache yet.

    Progress is in parameters. Raises ModelFileError for weights that cannot be packed.
    """
    executor = _native.Executor(threads)
    lower(spec.program, _Packing(spec, threads, progress), executor)
    return executor
