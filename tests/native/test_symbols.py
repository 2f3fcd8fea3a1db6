"""No vector code in symbols that the whole module shares.

A translation unit compiled for AVX2 may emit its own copy of any inline function or template that
it uses; as a weak symbol, that copy can be the one the linker keeps, and then a machine without
AVX2 runs it. So the objects of the instruction sets may define nothing but their table, and local
symbols.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = {
    **{isa: f"pocketlm::kernels_{isa}" for isa in ("avx2", "avx512", "asimd", "neon")},
    **{f"encode_{isa}": f"pocketlm::encoders_{isa}" for isa in ("avx2", "avx512")},
}
OBJECTS = sorted(
    path
    for path in ROOT.glob("build/*/CMakeFiles/core.dir/native/*/*.o")
    if path.name.split(".")[0] in TABLES
    and "sanitize" not in path.parts  # the sanitizers add shared symbols of their own
)


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
@pytest.mark.skipif(not OBJECTS, reason="no build tree: the module was installed from a wheel")
@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_an_instruction_set_defines_only_its_table(path: Path) -> None:
    listing = subprocess.run(
        ["nm", "--demangle", "--defined-only", path], check=True, capture_output=True, text=True
    ).stdout
    symbols = [line.split(maxsplit=2)[1:] for line in listing.splitlines()]
    assert len(symbols) > 20  # the listing is really that of the kernels
    shared = [name for kind, name in symbols if kind.isupper() or kind in "uvw"]
    assert shared == [TABLES[path.name.split(".")[0]]]
