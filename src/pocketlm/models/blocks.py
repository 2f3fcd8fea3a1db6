"""The parts that every decoder family is put together from.

``Decoder`` collects the ops of one forward pass. Its methods are the words in which a family
module says how its layers differ: norm, attention, feed-forward, residual. Weights are named as
GGUF names them (``blk.3.attn_q``), whatever kind of file they come from.
"""

from __future__ import annotations

from pocketlm.models.config import ModelConfig
from pocketlm.models.program import (
    Add,
    Attention,
    Embed,
    Finish,
    Gated,
    HeadNorms,
    Linear,
    Op,
    Part,
    Program,
    RmsNorm,
    RotateHeads,
    Select,
    Softcap,
)

RESIDUAL = "residual"


class Decoder:
    """Emits a program layer by layer; ``finish`` returns it.

    The residual stream stays in one buffer. After the last attention only the rows whose logits are
    asked for go on (``select_rows``), which saves a prefill one feed-forward block per token: every
    buffer then has a narrow twin, so the methods need not know on which side they are.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._buffers: dict[str, int] = {}
        self._ops: list[Op] = []
        self._selected = False

    def _buffer(self, name: str, width: int) -> str:
        name = f"{name}.rows" if self._selected else name
        assert self._buffers.setdefault(name, width) == width
        return name

    def residual(self) -> str:
        return self._buffer(RESIDUAL, self.config.hidden)

    def embed(self) -> None:
        config = self.config
        self._ops.append(
            Embed(self.residual(), "token_embd.weight", config.vocab, config.embedding_scale)
        )

    def norm(self, weight: str, src: str | None = None, dst: str = "normed") -> str:
        """An RMS norm of ``src`` (of the residual stream when None) into ``dst``."""
        src = src or self.residual()
        width = self._buffers[src]
        dst = src if dst == src else self._buffer(dst, width)
        self._ops.append(RmsNorm(dst, src, f"{weight}.weight", self.config.norm_eps))
        return dst

    def attention(self, layer: int, src: str, *, fused: bool = False) -> str:
        """q, k and v of ``src``, rotated, through attention: [tokens, heads * head_dim].

        ``fused`` takes them from one matrix [q; k; v] (Phi 3).
        """
        config = self.config
        window = config.windows[layer]
        qkv = self._buffer("qkv", config.qkv_width)
        dst = self._buffer("attended", config.heads * config.head_dim)
        parts = self._separate_qkv(layer, qkv)
        if fused:
            parts = (Part(f"blk.{layer}.attn_qkv.weight", config.qkv_width, qkv),)
        self._ops.append(Linear(src, parts, quantize=config.quantize))
        local = window > 0 and config.local_rope is not None
        rope = config.local_rope if local and config.local_rope is not None else config.rope
        norms = None
        if config.qk_norm:
            name = f"blk.{layer}.attn"
            norms = HeadNorms(f"{name}_q_norm.weight", f"{name}_k_norm.weight", config.norm_eps)
        heads = (config.heads, config.kv_heads, config.head_dim)
        self._ops.append(RotateHeads(qkv, "local" if local else "global", *heads, rope.dim, norms))
        self._ops.append(Attention(dst, qkv, *heads, config.attention_scale, window))
        return dst

    def _separate_qkv(self, layer: int, qkv: str) -> tuple[Part, ...]:
        config = self.config
        parts, offset = [], 0
        for name, heads in (("q", config.heads), ("k", config.kv_heads), ("v", config.kv_heads)):
            weight = f"blk.{layer}.attn_{name}"
            bias = f"{weight}.bias" if config.qkv_bias else None
            rows = heads * config.head_dim
            parts.append(Part(f"{weight}.weight", rows, qkv, offset, bias))
            offset += rows
        return tuple(parts)

    def gated_ffn(self, layer: int, src: str, *, fused: bool = False) -> str:
        """act(gate · src) * (up · src): [tokens, ffn].

        ``fused`` takes gate and up from one matrix [gate; up], which GGUF calls ffn_up (Phi 3).
        """
        config = self.config
        both = self._buffer("gate_up", 2 * config.ffn)
        dst = self._buffer("gated", config.ffn)
        name = f"blk.{layer}.ffn"
        parts: tuple[Part, ...] = (
            Part(f"{name}_gate.weight", config.ffn, both),
            Part(f"{name}_up.weight", config.ffn, both, config.ffn),
        )
        if fused:
            parts = (Part(f"{name}_up.weight", 2 * config.ffn, both),)
        self._ops.append(Linear(src, parts, quantize=config.quantize))
        self._ops.append(Gated(dst, both, config.activation))
        return dst

    def project(self, weight: str, src: str, dst: str = "projected") -> str:
        """``weight`` · src, back to the model's width."""
        dst = self._buffer(dst, self.config.hidden)
        part = Part(f"{weight}.weight", self.config.hidden, dst)
        self._ops.append(Linear(src, (part,), quantize=self.config.quantize))
        return dst

    def project_into_residual(self, weight: str, src: str) -> None:
        """residual += ``weight`` · src."""
        part = Part(f"{weight}.weight", self.config.hidden, self.residual())
        self._ops.append(Linear(src, (part,), accumulate=True, quantize=self.config.quantize))

    def add_to_residual(self, src: str) -> None:
        self._ops.append(Add(self.residual(), src))

    def select_rows(self, layer: int) -> None:
        """Called by each layer after its attention; only the last one narrows the residual."""
        if layer == self.config.layers - 1:
            wide = self.residual()
            self._selected = True
            self._ops.append(Select(self.residual(), wide))

    def finish(self) -> Program:
        """Final norm, logits and, where the model has one, the cap on them."""
        config = self.config
        hidden = self.norm("output_norm", dst="final")
        logits = self._buffer("logits", config.vocab)
        weight = "token_embd.weight" if config.tied else "output.weight"
        # the last rounding before the choice: a quarter of all that 8-bit activations change
        self._ops.append(Linear(hidden, (Part(weight, config.vocab, logits),), quantize="fine"))
        if config.logit_softcap is not None:
            self._ops.append(Softcap(logits, config.logit_softcap))
        self._ops.append(Finish(hidden, logits))
        ropes = {"global": config.rope}
        if config.local_rope is not None:
            ropes["local"] = config.local_rope
        return Program(self._buffers, ropes, tuple(self._ops))


def pre_norm_decoder(config: ModelConfig, *, fused: bool = False) -> Program:
    """The Llama forward pass: norm, attention, residual; norm, gated feed-forward, residual.

    ``fused`` as in ``Decoder.attention`` and ``Decoder.gated_ffn``.
    """
    decoder = Decoder(config)
    decoder.embed()
    for i in range(config.layers):
        normed = decoder.norm(f"blk.{i}.attn_norm")
        attended = decoder.attention(i, normed, fused=fused)
        decoder.project_into_residual(f"blk.{i}.attn_output", attended)
        decoder.select_rows(i)
        normed = decoder.norm(f"blk.{i}.ffn_norm")
        gated = decoder.gated_ffn(i, normed, fused=fused)
        decoder.project_into_residual(f"blk.{i}.ffn_down", gated)
    return decoder.finish()
