"""``pocketlm eval REF``: how good a model is, and how far from a reference."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pocketlm.cli.output import AsJson

if TYPE_CHECKING:
    from pocketlm.evaluate.divergence import Divergence
    from pocketlm.evaluate.evaluation import Evaluation
    from pocketlm.evaluate.tasks import Flips, TaskScore


def evaluate(
    ref: Annotated[str, typer.Argument(help="A model: smollm2:135m, hf:ORG/REPO, ./model.gguf …")],
    text: Annotated[
        Path | None, typer.Option(help="A UTF-8 text: its perplexity is measured.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The model to compare with, as before it was quantized.")
    ] = None,
    task: Annotated[Path | None, typer.Option(help="Multiple-choice questions, JSONL.")] = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens of a window of the text; default: 512.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="Overlap the windows; every token counts once.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Read no more of the text.")] = None,
    asked: Annotated[
        bool,
        typer.Option("--asked", help="Ask for the letter of the choice, as of remote models."),
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Default: the physical cores.")] = None,
    kv: Annotated[Literal["f16", "q8", "f32"], typer.Option(help="Type of the KV cache.")] = "f16",
    as_json: AsJson = False,
) -> None:
    """Measure perplexity, divergence from a reference, accuracy."""
    from pocketlm.cli.fetching import fetch
    from pocketlm.cli.output import progress, write_json
    from pocketlm.errors import RequestError
    from pocketlm.evaluate.evaluation import evaluate as run
    from pocketlm.store.remote_refs import is_remote

    if text is None and task is None:
        raise RequestError("there is nothing to measure", hint="Give --text FILE or --task FILE.")
    if asked or is_remote(ref):
        from pocketlm.cli.asked import evaluate as ask

        unfit = {"text": text, "reference": reference, "stride": stride, "max_tokens": max_tokens}
        ask(ref, task, unfit, context=context, threads=threads, kv=kv, as_json=as_json)
        return
    for name in (ref, reference):
        if name is not None:
            fetch(name)
    with progress() as report:
        found = run(
            ref,
            text=text,
            reference=reference,
            task=task,
            context=context,
            stride=stride,
            max_tokens=max_tokens,
            threads=threads,
            kv=kv,
            progress=report,
        )
    if as_json:
        write_json(asdict(found))
        return
    _write(found, text)


def _write(found: Evaluation, text: Path | None) -> None:
    from pocketlm.cli.output import harmless

    print(harmless(found.model))
    if found.perplexity is not None:
        measured = found.perplexity
        kind = "" if found.stride is None else f" every {found.stride}"
        print(
            f"  text           {harmless(str(text))}, {measured.tokens:,} tokens counted in "
            f"{measured.sequences:,} windows of {found.context}{kind}"
        )
        ppl = _with_error(measured.perplexity, measured.standard_error, 4)
        print(f"  perplexity     {ppl}")
        if found.bits_per_byte is not None:
            print(f"  bits per byte  {found.bits_per_byte:.4f}")
    if found.divergence is not None:
        _write_divergence(found.divergence, harmless(str(found.reference)))
    if found.task is not None:
        _write_task(found.task, found.reference_task, found.flips)


def _write_divergence(d: Divergence, reference: str) -> None:
    ppl = _with_error(d.reference_perplexity, d.reference_perplexity_standard_error, 4)
    ratio = _with_error(d.log_perplexity_ratio, d.log_perplexity_ratio_standard_error, 5)
    print(f"  reference      {reference}")
    print(f"                 perplexity {ppl}, ln(ratio) {ratio}")
    print(f"  mean KL        {_with_error(d.mean, d.standard_error, 6)} nats per token")
    print(f"                 median {d.median:.6f}, 99 % {d.p99:.6f}, largest {d.max:.6f}")
    print(f"  same top token {_percent(d.top1, d.top1_standard_error)}")
    print(f"  RMS Δp         {_percent(d.rms_delta_p, d.rms_delta_p_standard_error)}")
    print(f"  mean Δp        {_percent(d.mean_delta_p, d.mean_delta_p_standard_error)}")


def _write_task(own: TaskScore, reference: TaskScore | None, flips: Flips | None) -> None:
    print(f"  questions      {own.questions:,}")
    for name in ("acc", "acc_norm", "acc_bytes"):
        line = _percent(getattr(own, name), getattr(own, f"{name}_stderr"))
        if reference is not None:
            of_reference = getattr(reference, name), getattr(reference, f"{name}_stderr")
            line += f" (reference {_percent(*of_reference)})"
        print(f"  {name:<14} {line}")
    if flips is not None:
        print(
            f"  flips          {flips.right_to_wrong} right to wrong, {flips.wrong_to_right} wrong "
            f"to right; {flips.answer_changed} answers changed"
        )
    if own.truncated:
        print(f"  cut            {own.truncated} choices exceed the model's context")


def _with_error(value: float, error: float | None, digits: int) -> str:
    """``1.234 ± 0.005``; without an error where one window says nothing of the spread."""
    text = f"{value:.{digits}f}"
    return text if error is None else f"{text} ± {error:.{digits}f}"


def _percent(value: float, error: float | None) -> str:
    return _with_error(100 * value, None if error is None else 100 * error, 2) + " %"
