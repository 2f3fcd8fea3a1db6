"""Where a model's chat template comes from: its GGUF metadata, its folder, or its turn tokens.

A model may have several templates by name; `default` and `tool_use` are the ones in use. Models
converted without a template are common; for those whose control tokens can mean only one format,
the format is built in (`templates/*.jinja`). Nothing is guessed for the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from pocketlm.errors import ModelFileError
from pocketlm.text.json_files import read_json
from pocketlm.text.tokenizer import Tokenizer

_KEY = "tokenizer.chat_template"

# Format by the control tokens it needs, all of which the vocabulary must have.
_BUILTIN = {
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "phi": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
}


def gguf_templates(metadata: Mapping[str, object]) -> dict[str, str]:
    """Templates in GGUF metadata by name: `tokenizer.chat_template[.NAME]`.

    Raises:
        ModelFileError: one of the keys is not text.
    """
    found = {}
    for key, value in metadata.items():
        if key == _KEY or key.startswith(_KEY + "."):
            if not isinstance(value, str):
                raise ModelFileError(f"{key} should be text, found {type(value).__name__}")
            found[key[len(_KEY) + 1 :] or "default"] = value
    return found


def folder_templates(path: Path) -> dict[str, str]:
    """Templates of a Hugging Face folder by name.

    From `chat_template.jinja` and `additional_chat_templates/NAME.jinja`, else from
    `chat_template` in tokenizer_config.json, a text or a list of name and template.

    Raises:
        ModelFileError: tokenizer_config.json breaks its format.
    """
    found = _config_templates(path / "tokenizer_config.json")
    files = {"default": path / "chat_template.jinja"}
    extra = path / "additional_chat_templates"
    if extra.is_dir():
        files.update({file.stem: file for file in sorted(extra.glob("*.jinja"))})
    for name, file in files.items():
        if file.is_file():
            try:
                found[name] = file.read_text("utf-8")
            except UnicodeDecodeError as error:
                raise ModelFileError("the chat template is not UTF-8", path=file) from error
    return found


def _config_templates(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    value = read_json(file).get("chat_template")
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    found = {}
    for entry in value if isinstance(value, list) else [None]:
        fields = entry if isinstance(entry, dict) else {}
        name, source = fields.get("name"), fields.get("template")
        if not isinstance(name, str) or not isinstance(source, str):
            raise ModelFileError(
                "chat_template should be text or a list of objects with name and template",
                path=file,
            )
        found[name] = source
    return found


def builtin_template(tokenizer: Tokenizer) -> str | None:
    """The template whose turn tokens are all control tokens of `tokenizer`, or None."""
    control = set(tokenizer.special_texts)
    for name, needed in _BUILTIN.items():
        if control.issuperset(needed):
            file = resources.files(__package__).joinpath("templates", f"{name}.jinja")
            return file.read_text("utf-8")
    return None
