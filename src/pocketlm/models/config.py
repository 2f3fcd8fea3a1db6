"""What a model is: one frozen dataclass for every decoder family, with explicit switches.

A family module fills it from GGUF keys or from config.json; its ``program`` turns it into ops.
Constructing a ModelConfig checks it, so that whatever holds one may size buffers with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pocketlm.errors import ModelFileError
from pocketlm.models.rope import LongRope, Rope

MAX_LAYERS = 1024
MAX_WIDTH = 1 << 20  # hidden, ffn
MAX_HEADS = 4096
MAX_HEAD_DIM = 4096
MAX_VOCABULARY = 1 << 24
MAX_CONTEXT = 1 << 30


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer.

    Attributes:
        family: the module under ``models/families`` that reads and emits it.
        layers, hidden, heads, kv_heads, head_dim, ffn, vocab: its shape; heads is a multiple of
            kv_heads, head_dim is even and independent of hidden / heads.
        context: positions it was made for (the file's claim, longrope and YaRN included).
        norm_eps: of every RMS norm.
        tied: the output matrix is the embedding.
        rope: rotation of full-attention layers (of all layers where ``local_rope`` is None).
        local_rope: rotation of sliding-window layers where it differs (Gemma 3).
        windows: per layer how many positions a token sees, itself included; 0 for all.
        attention_scale: multiplies the scores.
        embedding_scale: multiplies the embedding (Gemma 3: sqrt(hidden)).
        qkv_bias: q, k and v have biases (Qwen 2).
        qk_norm: q and k heads are normalized before rotation (Qwen 3, Gemma 3).
        activation: of the gate: "silu", "gelu_tanh" or "relu2".
        logit_softcap: cap * tanh(logits / cap), None for none.
        quantize: how linear layers may quantize activations: "block" or "row" (BitNet).
    """

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    norm_eps: float
    tied: bool
    rope: Rope
    attention_scale: float
    windows: tuple[int, ...]
    local_rope: Rope | None = None
    embedding_scale: float = 1.0
    qkv_bias: bool = False
    qk_norm: bool = False
    activation: str = "silu"
    logit_softcap: float | None = None
    quantize: str = "block"

    def __post_init__(self) -> None:
        for name, high in (
            ("layers", MAX_LAYERS),
            ("hidden", MAX_WIDTH),
            ("heads", MAX_HEADS),
            ("kv_heads", MAX_HEADS),
            ("head_dim", MAX_HEAD_DIM),
            ("ffn", MAX_WIDTH),
            ("vocab", MAX_VOCABULARY),
            ("context", MAX_CONTEXT),
        ):
            value = getattr(self, name)
            if not 1 <= value <= high:
                raise ModelFileError(f"the model's {name} is {value}, expected 1 to {high}")
        if self.heads % self.kv_heads:
            raise ModelFileError(
                f"{self.heads} attention heads cannot share {self.kv_heads} key/value heads evenly"
            )
        if self.head_dim % 2:
            raise ModelFileError(f"the model's head_dim is {self.head_dim}, expected an even size")
        if len(self.windows) != self.layers or min(self.windows) < 0:
            raise ModelFileError(f"{len(self.windows)} attention windows for {self.layers} layers")
        for rope in (self.rope, self.local_rope):
            if rope is not None:
                self._check_rope(rope)

    def _check_rope(self, rope: Rope) -> None:
        if not 2 <= rope.dim <= self.head_dim or rope.dim % 2:
            raise ModelFileError(
                f"the rope dimension is {rope.dim}, expected an even number up to the "
                f"head_dim of {self.head_dim}"
            )
        scaling = rope.scaling
        lists = [getattr(scaling, name, None) for name in ("short", "long", "values")]
        for factors in lists:
            if factors is not None and len(factors) != rope.dim // 2:
                raise ModelFileError(
                    f"{len(factors)} rope factors for {rope.dim // 2} rotated pairs"
                )

    @property
    def rope_switch(self) -> int | None:
        """A sequence longer than this uses the long rope variant for all its positions."""
        scaling = self.rope.scaling
        return scaling.original_context if isinstance(scaling, LongRope) else None

    @property
    def qkv_width(self) -> int:
        """Columns of [q heads | k heads | v heads]."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim
