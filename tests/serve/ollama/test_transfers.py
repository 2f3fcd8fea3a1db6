"""create, push and pull by Ollama's own client, against a registry on loopback."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from tests.serve.ollama.registry import Registry

import pocketlm
from pocketlm.cli.main import main
from pocketlm.store import Setup, Store

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"


def statuses(lines: Any) -> list[str]:
    return [line.status for line in lines]


def setup_of(store: Store, name: str) -> Setup:
    return store.setup(store.resolve(name))


# create


def test_create_from_a_model_keeps_its_bytes(client: ollama.Client, store: Store) -> None:
    lines = client.create(
        "mine",
        from_="TINY",
        system="Be brief.",
        template=TEMPLATE,
        parameters={"temperature": 0.1, "stop": ["x"], "num_ctx": 128},
        messages=[{"role": "user", "content": "hi"}],
        license=["one", "two"],
        stream=True,
    )
    assert statuses(lines)[-1] == "success"
    made, base = store.resolve("mine"), store.resolve("tiny")
    assert made.path.read_bytes() == base.path.read_bytes()
    assert made.path.samefile(base.path)
    assert setup_of(store, "mine") == Setup(
        system="Be brief.",
        template=TEMPLATE,
        messages=({"role": "user", "content": "hi"},),
        options={"temperature": 0.1, "stop": ["x"]},
        context=128,
    )
    shown = client.show("mine")
    assert (shown.license, shown.template) == ("one\ntwo", TEMPLATE)
    assert "temperature" in (shown.parameters or "")
    assert 'SYSTEM "Be brief."' in (shown.modelfile or "")
    assert store.verify("mine").ok


def test_what_is_created_is_run_so(
    client: ollama.Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create(
        "mine", from_="tiny", system="Be brief.", parameters={"num_predict": 3, "seed": 5}
    )
    monkeypatch.setenv("POCKETLM_HOME", str(store.home))
    with pocketlm.load("mine", threads=1) as model, pocketlm.load("tiny", threads=1) as base:
        whole = model.chat("Hi")
        assert whole.stats.completion_tokens == 3
        system = {"role": "system", "content": "Be brief."}
        same = base.chat([system, {"role": "user", "content": "Hi"}], max_tokens=3, seed=5)
        assert (same.text, same.stats.prompt_tokens) == (whole.text, whole.stats.prompt_tokens)
        assert model.chat("Hi", max_tokens=2).stats.completion_tokens == 2


def test_a_model_of_a_model_goes_on_from_it(client: ollama.Client, store: Store) -> None:
    client.create("one", from_="tiny", system="A", parameters={"top_k": 3, "seed": 1})
    client.create("two", from_="one", parameters={"seed": 2})
    assert setup_of(store, "two").system == "A"
    assert setup_of(store, "two").options == {"top_k": 3, "seed": 2}
    client.create("one", from_="one", system="B")
    assert setup_of(store, "one").system == "B"
    assert setup_of(store, "two").system == "A"


def test_create_from_a_gguf_blob(client: ollama.Client, weights: Path, store: Store) -> None:
    store.remove("tiny")
    digest = client.create_blob(weights)
    client.create("fresh", files={"fresh.gguf": digest}, system="A")
    made = store.resolve("fresh")
    assert made.path.read_bytes() == weights.read_bytes()
    assert setup_of(store, "fresh").system == "A"
    assert [store.shelf.blobs.path(hex).exists() for hex in [digest.partition(":")[2]]] == [True]


def test_create_from_a_folder_of_safetensors(
    client: ollama.Client, store: Store, tmp_path: Path, weights: Path
) -> None:
    folder = tmp_path / "folder"
    pocketlm.convert(weights, folder, to="hf")
    files = {p.name: client.create_blob(p) for p in folder.iterdir() if p.is_file()}
    client.create("folder", files=files, system="A")
    made = store.resolve("folder")
    assert made.manifest is not None
    assert made.manifest.facts.format == "safetensors"
    assert {p.name for p in made.path.iterdir()} == {*files, "system"}
    assert setup_of(store, "folder").system == "A"
    client.create("smaller", from_="folder", quantize="q8_0")
    manifest = store.resolve("smaller").manifest
    assert manifest is not None
    assert (manifest.facts.format, manifest.facts.quantization) == ("gguf", "Q8_0")
    assert setup_of(store, "smaller").system == "A"


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({}, 400, "neither 'from' or 'files' was specified"),
        ({"from": "tiny", "files": {"a.gguf": "sha256:" + "0" * 64}}, 400, "expected one"),
        ({"from": "nobody"}, 404, "nobody"),
        ({"from": "/etc/passwd"}, 400, "invalid model name"),
        ({"from": "./m.gguf"}, 400, "invalid model name"),
        ({"from": "m.gguf"}, 400, "invalid model name"),
        ({"files": {"a.gguf": "sha256:" + "0" * 64}}, 400, "there is no blob"),
        ({"files": {"a.gguf": "../../etc"}}, 400, "invalid digest format"),
        ({"files": {"../a.gguf": "sha256:" + "0" * 64}}, 400, "not the name of a file"),
        ({"from": "tiny", "template": "{{ .Prompt }}"}, 400, "written for Go"),
        ({"from": "tiny", "adapters": {"a": "sha256:" + "0" * 64}}, 501, "adapters"),
        ({"from": "tiny", "quantize": "Q99"}, 400, "Q99"),
        ({"from": "tiny", "parameters": {"top_k": "many"}}, 400, "top_k"),
        ({"from": "tiny", "messages": [{"role": "wizard", "content": ""}]}, 400, "wizard"),
    ],
)
def test_recipes_that_make_no_sense(
    url: str, store: Store, fields: dict[str, Any], status: int, words: str
) -> None:
    body = {"model": "new", "stream": False, **fields}
    answer = httpx.post(f"{url}/api/create", json=body)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert [model.name for model in store.list()] == ["tiny:latest"]


def test_a_blob_that_is_no_model(client: ollama.Client, store: Store, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"GGUF" + b"\xff" * 100)
    digest = client.create_blob(tmp_path / "bad")
    with pytest.raises(ollama.ResponseError) as error:
        client.create("bad", files={"bad.gguf": digest})
    assert error.value.status_code in (422, 501)
    assert [model.name for model in store.list()] == ["tiny:latest"]


def test_a_damaged_blob_is_not_trusted(url: str, store: Store) -> None:
    sha256 = next(iter(store.shelf.blobs))
    path = store.shelf.blobs.path(sha256)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    body = {"model": "new", "files": {"a.gguf": f"sha256:{sha256}"}, "stream": False}
    answer = httpx.post(f"{url}/api/create", json=body)
    assert "damaged" in answer.json()["error"]


# push and pull


def test_push_and_pull(
    client: ollama.Client, store: Store, registry: Registry, tmp_path: Path
) -> None:
    name = "team/mine:1"
    client.create("mine", from_="tiny", system="A", parameters={"seed": 3}, template=TEMPLATE)
    store.push("mine", "ollama:team/mine:1")
    document = registry.manifests["/v2/team/mine/manifests/1"]
    kinds = [one["mediaType"].rpartition(".")[2] for one in json.loads(document)["layers"]]
    assert sorted(kinds) == ["model", "params", "system", "template"]
    methods = [method for method, _ in registry.requests]
    assert methods[-1] == "PUT"

    lines = list(client.pull(name, stream=True))
    seen = statuses(lines)
    weights = hashlib.sha256(store.resolve("tiny").path.read_bytes()).hexdigest()
    assert seen[0] == "pulling manifest"
    assert seen[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    assert setup_of(store, "ollama:team/mine:1") == setup_of(store, "mine")

    for model in ("mine", "tiny", "ollama:team/mine:1"):
        store.remove(model)
    lines = list(client.pull(name, stream=True))
    (last,) = [one for one in lines if one.status == f"pulling {weights[:12]}"][-1:]
    assert (last.digest, last.completed) == (f"sha256:{weights}", last.total)
    assert client.show(name).model_dump()["template"] == TEMPLATE
    pushed = client.push(name)
    assert pushed.status == "success"


def test_what_is_there_is_not_sent_again(store: Store, registry: Registry) -> None:
    store.push("tiny", "ollama:a/tiny:1")
    registry.requests.clear()
    store.push("tiny", "ollama:a/tiny:2")
    assert {method for method, _ in registry.requests} == {"HEAD", "PUT"}
    assert [path for method, path in registry.requests if method == "PUT"] == [
        "/v2/a/tiny/manifests/2"
    ]


def test_a_token_is_asked_for_with_the_login_of_netrc(
    store: Store, registry: Registry, tmp_path: Path
) -> None:
    registry.token = "t0ken"
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    store.push("tiny", "ollama:a/tiny:1")
    assert registry.logins == ["Basic bWU6c2VjcmV0"]
    assert "/v2/a/tiny/manifests/1" in registry.manifests


@pytest.mark.parametrize("realm", ["http://127.0.0.1:1/token", "https://evil.example/token"])
def test_a_foreign_realm_is_never_asked(store: Store, registry: Registry, realm: str) -> None:
    registry.token, registry.realm = "t0ken", realm
    with pytest.raises(pocketlm.SourceError, match="a foreign realm is not trusted"):
        store.push("tiny", "ollama:a/tiny:1")


def test_an_upload_to_another_host_is_not_followed(store: Store, registry: Registry) -> None:
    registry.upload_to = "http://127.0.0.1:1"
    with pytest.raises(pocketlm.SourceError, match="is not followed"):
        store.push("tiny", "ollama:a/tiny:1")
    assert not registry.manifests


@pytest.mark.parametrize(("part", "status"), [("/blobs/", 507), ("/manifests/", 403)])
def test_a_registry_that_refuses(
    client: ollama.Client, store: Store, registry: Registry, part: str, status: int
) -> None:
    registry.refuses[part] = status
    with pytest.raises(pocketlm.SourceError, match=f"refused the push .* \\({status}\\): no room"):
        store.push("tiny", "ollama:a/tiny:1")
    assert not registry.manifests or status == 403


def test_an_unknown_model_ends_the_stream_with_an_error(
    client: ollama.Client, store: Store, registry: Registry
) -> None:
    with pytest.raises(ollama.ResponseError, match="pull model manifest: file does not exist"):
        list(client.pull("nobody", stream=True))
    with pytest.raises(ollama.ResponseError, match="file does not exist") as error:
        client.pull("nobody")
    assert error.value.status_code == 404


def test_names_without_a_registry_are_not_pushed(client: ollama.Client, store: Store) -> None:
    with pytest.raises(ollama.ResponseError, match="names no registry") as error:
        client.push("tiny")
    assert error.value.status_code == 400


# The command line


def test_the_command_line_creates_and_pushes(
    store: Store,
    registry: Registry,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("POCKETLM_HOME", str(store.home))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "Modelfile").write_text('FROM ./w.gguf\nSYSTEM "A"\nPARAMETER seed 4\n')
    (folder / "w.gguf").symlink_to(weights)
    assert main(["create", "own", "-f", "recipes/Modelfile", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "own:latest"
    assert setup_of(store, "own") == Setup(system="A", options={"seed": 4})
    assert main(["create", "small", "-f", "recipes/Modelfile", "-q", "q8_0"]) == 0
    assert "small:latest: from" in capsys.readouterr().out
    assert main(["push", "small", "ollama:a/small:1"]) == 0
    assert "is at ollama:a/small:1 now" in capsys.readouterr().out
    assert main(["push", "small", "ollama:a/small:1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "ollama:a/small:1"
    assert main(["create", "own", "-f", "nowhere"]) == 2
    assert "there is no such file" in capsys.readouterr().err
