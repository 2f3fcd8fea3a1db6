"""Opening a model: a GGUF file (or a split set) or a safetensors folder becomes a ModelSpec.

The spec knows everything about the model but holds no weights yet: its configuration, its program,
where tensors, tokenizer and template are, and the sampling defaults that its makers ship. Every
shape and type that the program will ask for has been checked when ``open_model`` returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pocketlm.errors import ModelFileError, NotFoundError, UnsupportedError
from pocketlm.gguf import GGUFFile
from pocketlm.models.config import ModelConfig
from pocketlm.models.families import FAMILIES
from pocketlm.models.family import Family, canonical_names, is_text
from pocketlm.models.fields import Fields
from pocketlm.models.generation import folder_generation, gguf_generation
from pocketlm.models.program import Program
from pocketlm.models.reading import refuse_leftovers
from pocketlm.models.safetensors import Entry, FolderSource, read_folder, read_json
from pocketlm.models.sources import GGUFSource, TensorSource, missing, require_packable
from pocketlm.text.template_sources import folder_templates, gguf_templates

# Read into the configuration, so no op names them.
_FACT_TENSORS = {"rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"}


@dataclass
class ModelSpec:
    """A model that can be built.

    Attributes:
        path: the file or folder.
        name: what the file calls itself, else the file's or folder's name.
        architecture: what the file says it is: GGUF's name, or the Hugging Face class.
        config: the facts of its architecture.
        program: its forward pass.
        source: its tensors; closed by ``close``.
        tokenizer_source: GGUF metadata, or the folder that has tokenizer.json.
        chat_templates: jinja2 sources by name: "default", "tool_use"; empty where it has none.
        generation: sampling defaults that the files carry, under ``Sampling``'s names.
        parameters: counted from the tensors that the program uses, a shared one once.
    """

    path: Path
    name: str
    architecture: str
    config: ModelConfig
    program: Program
    source: TensorSource
    tokenizer_source: Mapping[str, object] | Path
    chat_templates: Mapping[str, str]
    generation: Mapping[str, float]
    parameters: int

    @property
    def chat_template(self) -> str | None:
        """The template for ordinary chats."""
        return self.chat_templates.get("default")

    def close(self) -> None:
        self.source.close()


def open_model(path: Path) -> ModelSpec:
    """Opens a .gguf file or a safetensors folder.

    Raises:
        NotFoundError: there is nothing at the path.
        ModelFileError: a file breaks its format or contradicts itself; the message names the key or
            tensor.
        UnsupportedError: a model that PocketLM does not run.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise NotFoundError("there is no such file or folder", path=path)
    return _open_gguf(path)


def _open_gguf(path: Path) -> ModelSpec:
    file = GGUFFile.open(path)
    try:
        return gguf_spec(file.metadata, GGUFSource(file))
    except BaseException:
        file.close()
        raise


def gguf_spec(metadata: Mapping[str, object], source: TensorSource) -> ModelSpec:
    """The spec that a GGUF file's metadata and tensors make. Raises what ``open_model`` does."""
    path, root = source.path, Fields(metadata, source.path)
    architecture = root.text("general.architecture")
    family = _choose(architecture, lambda f: f.gguf, "GGUF architecture", path)
    keys = Fields(metadata, path, prefix=f"{architecture}.")
    config = family.config_from_gguf(keys, source)
    tokens = root.raw("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) > config.vocab:
        raise root.wrong("tokenizer.ggml.tokens", f"at most the embedding's {config.vocab:,} rows")
    program = family.program(config)
    adapted = family.adapt_gguf(source, keys, config)
    _check_tensors(program, adapted, config, set(source.names()) & _FACT_TENSORS)
    return ModelSpec(
        path=path,
        name=root.text("general.name", path.stem),
        architecture=architecture,
        config=config,
        program=program,
        source=adapted,
        tokenizer_source=metadata,
        chat_templates=gguf_templates(metadata),
        generation=gguf_generation(root),
        parameters=count_parameters(program),
    )


def _open_folder(folder: Path) -> ModelSpec:
    spec = folder_spec(read_json(folder / "config.json"), partial(read_folder, folder), folder)
    spec.chat_templates = folder_templates(folder)
    spec.generation = folder_generation(folder)
    return spec


def folder_spec(
    outer: Mapping[str, object], entries: Callable[[], Mapping[str, Entry]], folder: Path
) -> ModelSpec:
    """The spec that a folder's config.json and tensors make, without templates and defaults.

    Args:
        outer: of config.json.
        entries: gives the tensors; asked for once the configuration is one that PocketLM runs.
        folder: for errors, and where the values would be read.

    Raises what ``open_model`` does.
    """
    classes = outer.get("architectures")
    if not isinstance(classes, list) or not classes or not isinstance(classes[0], str):
        raise ModelFileError("'architectures' names no model class", path=folder / "config.json")
    family = _choose(classes[0], lambda f: f.hf, "model class", folder)
    _refuse_quantized(outer, family, folder)
    fields = Fields(_text_config(outer, family), folder / "config.json")
    text = {name: entry for name, entry in entries().items() if is_text(name)}
    source = FolderSource(folder, text, canonical_names(text, family.layer_names))
    config = family.config_from_hf(fields, source)
    program = family.program(config)
    adapted = family.adapt_hf(source, fields, config)
    _check_tensors(program, adapted, config, {"output.weight"} if config.tied else set())
    return ModelSpec(
        path=folder,
        name=folder.name,
        architecture=classes[0],
        config=config,
        program=program,
        source=adapted,
        tokenizer_source=folder,
        chat_templates={},
        generation={},
        parameters=count_parameters(program),
    )


def _choose(found: str, keys: Callable[[Family], tuple[str, ...]], what: str, path: Path) -> Family:
    for family in FAMILIES:
        if found in keys(family):
            return family
    known = ", ".join(sorted({key for family in FAMILIES for key in keys(family)}))
    raise UnsupportedError(
        f"the {what} '{found}' is not one that PocketLM runs", path=path, hint=f"It runs {known}."
    )


def _text_config(outer: Mapping[str, object], family: Family) -> Mapping[str, object]:
    """The text model's settings over the class's defaults; a multimodal config nests them."""
    inner = outer.get("text_config")
    if not isinstance(inner, dict):
        return {**family.hf_defaults, **outer}
    shared = {k: outer[k] for k in ("tie_word_embeddings", "quantization_config") if k in outer}
    return {**family.hf_defaults, **inner, **shared}


def _refuse_quantized(outer: Mapping[str, object], family: Family, folder: Path) -> None:
    how = outer.get("quantization_config")
    if how is None:
        return
    method = how.get("quant_method") if isinstance(how, dict) else None
    if method != "bitnet" or family.name != "bitnet":
        raise UnsupportedError(
            f"the weights are quantized by {method!r}, which PocketLM does not read for "
            f"{family.name}",
            path=folder,
            hint="Take the unquantized model (F32, F16 or BF16), or a GGUF file of it.",
        )


def _check_tensors(
    program: Program, source: TensorSource, config: ModelConfig, ignored: set[str]
) -> None:
    """Every weight is there, has the program's shape and a type that the core runs; no other is."""
    present = set(source.names())
    shapes = program.shapes()
    for name, shape in shapes.items():
        if name not in present:
            error = missing(name, source.path)
            error.hint = f"Its metadata says {config.layers} layers of {config.family}."
            raise error
        found = source.shape(name)
        if found != shape:
            raise ModelFileError(
                f"tensor '{name}' has the shape {found}, its metadata wants {shape}",
                path=source.path,
            )
        if len(shape) == 2:
            require_packable(name, source.type(name), source.path)
    refuse_leftovers(present, {*shapes, *ignored}, config.family, source.path)


def count_parameters(program: Program) -> int:
    """Weights of the program; one that two ops share counts once."""
    return sum(math.prod(shape) for shape in program.shapes().values())
