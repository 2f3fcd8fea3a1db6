"""Counting the parameters of files that lie on a hub, from their headers."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

import numpy as np
import pytest

from pocketlm.search import Found, Query, Range, search
from search.fake_hub import COMMIT, FakeHub, record
from store.local_server import LocalServer, Resource
from store.tiny_models import gguf, safetensors

Run = Callable[..., tuple[int, str, str]]
CONFIG = json.dumps({"model_type": "llama", "tie_word_embeddings": True}).encode()
TIED = safetensors(
    {"model.embed_tokens.weight": ("BF16", [1000, 80]), "lm_head.weight": ("BF16", [1000, 80])}
)


def repository(hub: FakeHub, repo: str, files: dict[str, bytes], **facts: object) -> None:
    siblings = [{"rfilename": name} for name in files]
    hub.records.append(record(repo, siblings=siblings, **facts))
    for name, data in files.items():
        hub.put(repo, name, data)


def one(query: Query | None = None) -> Found:
    (found,) = search(query or Query()).found
    return found


def test_a_tied_head_counts_once(hub: FakeHub) -> None:
    files = {"config.json": CONFIG, "model.safetensors": TIED}
    repository(hub, "acme/a", files, safetensors={"total": 160_000})
    found = one()
    assert (found.parameters, found.counted, found.stated) == (80_000, "headers", 160_000)
    assert found.size_class == "outside"


def test_packed_weights_count_as_what_they_unpack_to(hub: FakeHub) -> None:
    config = {"model_type": "llama", "quantization": {"group_size": 64, "bits": 4}}
    tensors = {"a.weight": ("U32", [64, 8]), "a.scales": ("F16", [64, 1])}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": safetensors(tensors)}
    repository(hub, "acme/a", files, safetensors={"total": 576})
    assert one().parameters == 64 * 64


def test_every_shard_is_read(hub: FakeHub) -> None:
    files = {"config.json": CONFIG, "consolidated.safetensors": TIED}
    for i in (1, 2):
        tensors = safetensors({f"model.{i}": ("F32", [7, i])})
        files[f"model-0000{i}-of-00002.safetensors"] = tensors
    repository(hub, "acme/a", files)
    assert one().parameters == 21


def test_only_headers_are_fetched(hub: FakeHub) -> None:
    """A second request where the header is longer than the first one asked for."""
    tensors = {f"model.layers.{i}.weight": ("F16", [2, 3]) for i in range(4000)}
    data = safetensors(tensors) + bytes(1 << 20)
    siblings = [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}]
    hub.records = [record("acme/a", siblings=siblings)]
    hub.put("acme/a", "config.json", CONFIG)
    asked = hub.put("acme/a", "model.safetensors", data)
    assert one().parameters == 24_000
    end = 8 + struct.unpack("<Q", data[:8])[0]
    assert [request.headers["range"] for request in asked] == [
        "bytes=0-131071", f"bytes=131072-{end - 1}",
    ]  # fmt: skip


def gguf_with_long_vocabulary() -> tuple[bytes, int]:
    """A GGUF whose header takes more than the first request of it, and its parameters."""
    import tempfile
    from pathlib import Path

    from pocketlm.gguf import BlockType, TensorData, write_gguf

    weight = np.zeros((64, 320), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.gguf")
        tokens = [f"a token with a long name, number {i}" for i in range(60_000)]
        write_gguf(
            path,
            {"general.architecture": "llama", "tokenizer.ggml.tokens": tokens},
            [
                TensorData("token_embd.weight", BlockType.F32, weight.shape, weight),
                TensorData("rope_freqs.weight", BlockType.F32, (4,), np.ones(4, np.float32)),
            ],
        )
        return path.read_bytes(), weight.size


def test_a_gguf_is_read_until_its_header_ends(hub: FakeHub) -> None:
    data, parameters = gguf_with_long_vocabulary()
    siblings = [{"rfilename": "M-Q8_0.gguf"}, {"rfilename": "mmproj-M.gguf"}]
    hub.records = [record("acme/a", siblings=siblings)]
    asked = hub.put("acme/a", "M-Q8_0.gguf", data)
    assert one().parameters == parameters
    assert [request.headers["range"] for request in asked] == [
        "bytes=0-1048575", f"bytes=1048576-{min(3 << 20, len(data)) - 1}",
    ]  # fmt: skip


def test_one_of_many_quantizations_is_counted(hub: FakeHub) -> None:
    files = {f"M-{kind}.gguf": gguf() for kind in ("Q4_0", "Q8_0")}
    repository(hub, "acme/a", files, gguf={"total": 50_004, "context_length": 4096})
    found = one()
    assert (found.parameters, found.stated, found.context) == (50_000, 50_004, 4096)
    assert len([r for r in hub.server.requests if "/resolve/" in r.path]) == 1


def test_counts_decide_what_fits(hub: FakeHub) -> None:
    files = {"config.json": CONFIG, "model.safetensors": TIED}
    repository(hub, "acme/doubled", files, safetensors={"total": 160_000})
    repository(hub, "acme/other", files | {"model.safetensors": safetensors({"a": ("F32", [9])})})
    found = search(Query(parameters=Range(70_000, 90_000))).found
    assert [f.id for f in found] == ["acme/doubled"]


def test_counts_are_kept_for_the_commit(hub: FakeHub) -> None:
    files = {"config.json": CONFIG, "model.safetensors": TIED}
    repository(hub, "acme/a", files)
    first, asked = one(), len(hub.server.requests)
    assert one(Query(refresh=True)) == first
    assert len(hub.server.requests) == asked + 1  # the list alone


def test_offline_counts_that_are_kept_are_used_and_none_is_tried(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(hub, "acme/a", {"config.json": CONFIG, "model.safetensors": TIED})
    search(Query())
    repository(hub, "acme/b", {"config.json": CONFIG, "model.safetensors": TIED})
    search(Query(count=False, refresh=True))
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    found = {one.id: (one.counted, one.uncounted) for one in search(Query()).found}
    assert found == {"acme/a": ("headers", None), "acme/b": (None, None)}


def test_a_busy_hub_is_left_alone(hub: FakeHub) -> None:
    for name in ("acme/a", "acme/b", "acme/c"):
        repository(hub, name, {"config.json": CONFIG, "model.safetensors": TIED})
        path = f"/{name}/resolve/{COMMIT}/config.json"
        hub.server.put(path, status=429, headers={"Retry-After": "300"})
    results = search(Query())
    assert [found.counted for found in results.found] == [None] * 3
    (note,) = results.notes
    assert "too many requests (429) and wants the next one in 5 minutes" in note
    assert all(found.uncounted is None for found in results.found)


def test_headers_are_read_up_to_a_bound(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketlm.search.hub.MOST_BYTES", 100)
    monkeypatch.setattr("pocketlm.search.hub._AT_ONCE", 1)
    for name in ("acme/a", "acme/b"):
        repository(hub, name, {"config.json": CONFIG, "model.safetensors": TIED})
    results = search(Query())
    assert [found.counted for found in results.found] == ["headers", None]
    assert "of headers were read" in results.notes[0]


def test_what_lies_beside_the_weights_is_not_counted(hub: FakeHub) -> None:
    files = {"imatrix.gguf": b"?", "M-imatrix.gguf": b"?", "mmproj-M.gguf": b"?", "z.gguf": gguf()}
    repository(hub, "acme/a", files)
    assert one().parameters == 50_000


def header(length: int, rest: bytes = b"{}") -> bytes:
    return struct.pack("<Q", length) + rest


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"config.json": b"[]", "model.safetensors": TIED}, "config.json is not a JSON object"),
        ({"config.json": b"{", "model.safetensors": TIED}, "config.json is not JSON"),
        ({"config.json": CONFIG, "model.safetensors": header(1 << 60)}, "claims a header"),
        ({"config.json": CONFIG, "model.safetensors": header(2, b"no")}, "not JSON"),
        ({"config.json": CONFIG, "model.safetensors": b"abc"}, "claims a header"),
        ({"M.gguf": b"GGUF" + bytes(60)}, "version"),
        ({"M.gguf": gguf()[:300]}, ""),
        ({"M.gguf": b"not a gguf at all"}, "no GGUF file"),
        ({"adapter_model.safetensors": TIED, "config.json": CONFIG}, "no GGUF file and no safe"),
        ({"pytorch_model.bin": b"pickle"}, "no GGUF file and no safetensors"),
    ],
)
def test_what_cannot_be_counted_says_why_and_keeps_the_hubs_count(
    files: dict[str, bytes], why: str, hub: FakeHub
) -> None:
    repository(hub, "acme/a", files, safetensors={"total": 7})
    found = one()
    assert (found.parameters, found.counted) == (7, "source")
    assert found.uncounted is not None
    assert why in found.uncounted


def test_a_gated_repository_says_so(hub: FakeHub, pocketlm: Run) -> None:
    siblings = [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}]
    hub.records = [record("acme/a", siblings=siblings, gated="auto")]
    gate = Resource(status=403, headers={"X-Error-Code": "GatedRepo"})
    hub.server.resources[f"/acme/a/resolve/{COMMIT}/config.json"] = gate
    _, out, _ = pocketlm("search")
    assert "gated; not counted: config.json is gated" in out


def test_a_server_that_gives_whole_files_is_not_read_to_the_end(
    hub: FakeHub, server: LocalServer
) -> None:
    siblings = [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}]
    hub.records = [record("acme/a", siblings=siblings)]
    for name, data in (("config.json", CONFIG), ("model.safetensors", TIED)):
        server.put(f"/acme/a/resolve/{COMMIT}/{name}", data, ranges=False)
    assert one().parameters == 80_000
