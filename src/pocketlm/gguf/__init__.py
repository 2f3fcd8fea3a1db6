"""The GGUF file format: reading, writing, block types. The lowest floor above the native core."""

from pocketlm.gguf.metadata import Value
from pocketlm.gguf.reader import GGUFFile, release_pages
from pocketlm.gguf.tensors import TensorInfo
from pocketlm.gguf.types import (
    NATIVE_TYPES,
    BlockType,
    block_bytes,
    block_elements,
    decodable,
    dequantize,
    tensor_nbytes,
)
from pocketlm.gguf.writer import TensorData, gguf_nbytes, write_gguf

__all__ = [
    "NATIVE_TYPES",
    "BlockType",
    "GGUFFile",
    "TensorData",
    "TensorInfo",
    "Value",
    "block_bytes",
    "block_elements",
    "decodable",
    "dequantize",
    "gguf_nbytes",
    "release_pages",
    "tensor_nbytes",
    "write_gguf",
]
