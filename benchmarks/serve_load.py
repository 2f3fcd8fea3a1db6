"""Many clients at once: `pocketlm serve` beside llama.cpp's server, over HTTP, on this machine.

    python benchmarks/serve_load.py smollm2:135m [./other.gguf …] [--clients 16] [--rounds 3]
        [--only load,single,long,prefix,overhead] [--no-llamacpp]

llama.cpp's server is that of the package `xllamacpp`, with as many slots as there are clients, the
same threads and continuous batching. Both servers run all the time and are asked in turns, so that
a machine that changes its speed changes it for both. Every client has a prompt of its own of about
130 tokens and takes 64 tokens, greedily, end-of-turn tokens ignored, as server-sent events.

The parts: load, the table of both servers; single, one client beside `pocketlm run`; long, what a
prompt of 3,900 tokens does to the streams of four others; prefix, a second request with the first
1,000 tokens of another one, whose log-probabilities must be those of an engine without a cache;
overhead, the same requests driven through the engine in one process without server or client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_TEXT = """
river stone window garden engine letter winter candle market mountain copper silver bridge forest
island shadow planet harbor mirror thunder velvet orchard castle anchor lantern meadow pepper ribbon
saddle temple valley walnut basket button carpet dollar feather guitar hammer
"""
WORDS = _TEXT.split()
OUTPUT = 64


@dataclass
class Stream:
    """What one client saw: when it asked, when each event came, and what the last one said."""

    asked: float = 0.0
    events: list[float] = field(default_factory=list)
    text: str = ""
    tokens: int = 0

    @property
    def ttft(self) -> float:
        return self.events[0] - self.asked

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in zip(self.events, self.events[1:], strict=False)]


def prompt_of(path: str, tokens: int, seed: int) -> str:
    """A text of about so many tokens of the model."""
    draw = random.Random(seed)
    words = round(tokens / tokens_per_word(path))
    return f"Chapter {seed}: " + " ".join(draw.choice(WORDS) for _ in range(words))


@functools.cache
def tokens_per_word(path: str) -> float:
    """How many tokens of the model a word of ours has."""
    from pathlib import Path

    from pocketlm.engine.prompts import text_side
    from pocketlm.models import open_model

    with contextlib.closing(open_model(Path(path))) as spec:
        return len(text_side(spec).plain(_TEXT).tokens) / len(WORDS)


# One client


async def complete(port: int, prompt: str, tokens: int = OUTPUT, **options: object) -> Stream:
    """Streams one completion; keeps the time of every event, and parses only at the end."""
    body = {
        "model": "",
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
        **options,
    }
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    stream = Stream(asked=time.perf_counter())
    writer.write(head.encode() + data)
    lines: list[bytes] = []
    status = await reader.readline()
    async for line in reader:
        if line.startswith(b"data: {"):
            stream.events.append(time.perf_counter())
            lines.append(line)
        elif line.startswith(b'{"error'):
            raise SystemExit(line.decode())
    writer.close()
    if b" 200 " not in status:
        raise SystemExit(f"the server says {status!r}")
    _read(stream, lines)
    return stream


def _read(stream: Stream, lines: Sequence[bytes]) -> None:
    """The text and the count of tokens; events that bring no text are not counted as such."""
    texts = []
    for line in lines:
        event = json.loads(line[6:])
        if event.get("usage"):
            stream.tokens = event["usage"]["completion_tokens"]
        texts.append("".join(choice.get("text") or "" for choice in event.get("choices", ())))
    kept = [when for when, text in zip(stream.events, texts, strict=True) if text]
    stream.events, stream.text = kept, "".join(texts)


async def burst(port: int, prompts: Sequence[str], tokens: int = OUTPUT) -> tuple[float, list]:
    """All at once; the seconds that it took and what each client saw."""
    began = time.perf_counter()
    streams = await asyncio.gather(*(complete(port, prompt, tokens) for prompt in prompts))
    return time.perf_counter() - began, streams


# The servers


@contextlib.contextmanager
def ours(ref: str, clients: int, *options: str) -> Iterator[int]:
    """`pocketlm serve`, loaded; its port."""
    command = [sys.executable, "-m", "pocketlm", "serve", ref, "--port", "0", "--json"]
    command += ["--parallel", str(clients), *options]
    with _process(command) as process:
        url = json.loads(process.stdout.readline())["url"]
        port = int(url.rpartition(":")[2])
        for _ in range(600):
            if asyncio.run(_status(port, "/ready")) == 200:
                break
            time.sleep(0.1)
        yield port


@contextlib.contextmanager
def llamacpp(path: str, clients: int, threads: int) -> Iterator[int]:
    """llama.cpp's server in a process of its own; its port."""
    command = [sys.executable, __file__, path, "--serve-llamacpp", str(clients), str(threads)]
    with _process(command) as process:
        yield int(process.stdout.readline().rpartition(b":")[2])


def serve_llamacpp(path: str, slots: int, threads: int) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel = slots
    params.n_ctx = 512 * slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.port = 0
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


@contextlib.contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


async def _status(port: int, path: str) -> int:
    status, _ = await request(port, "GET", path)
    return status


async def request(port: int, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """A request that is answered whole."""
    data = b"" if body is None else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    answer = await reader.read()
    writer.close()
    first, _, content = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), content


# The parts


def load(ref: str, path: str, args: argparse.Namespace) -> None:
    """Aggregate speed, time to the first token and gaps of both servers."""
    rows: dict[str, list[tuple[float, list[Stream]]]] = {}
    with contextlib.ExitStack() as stack:
        ports = {"pocketlm": stack.enter_context(ours(ref, args.clients))}
        if args.llamacpp:
            ports["llama.cpp"] = stack.enter_context(llamacpp(path, args.clients, args.threads))
        for port in ports.values():
            asyncio.run(burst(port, [prompt_of(path, 26, 999)], 8))
        for round_ in range(args.rounds):
            prompts = [prompt_of(path, 130, 1000 * round_ + i) for i in range(args.clients)]
            for name, port in ports.items():
                rows.setdefault(name, []).append(asyncio.run(burst(port, prompts)))
    print(f"\n{ref}: {args.clients} clients, {args.rounds} rounds, medians")
    print("server      tokens/s  TTFT p50  TTFT p95  gap p50  gap p99")
    found = {}
    for name, rounds in rows.items():
        found[name] = [
            statistics.median(sum(s.tokens for s in streams) / took for took, streams in rounds),
            statistics.median(_part([s.ttft for s in streams], 0.5) for _, streams in rounds),
            statistics.median(_part([s.ttft for s in streams], 0.95) for _, streams in rounds),
            *(_part([g for _, ss in rounds for s in ss for g in s.gaps], q) for q in (0.5, 0.99)),
        ]
        speed, p50, p95, gap, worst = found[name]
        row = f"{name:<11} {speed:8.1f} {p50:8.2f}s {p95:8.2f}s"
        print(f"{row} {1e3 * gap:6.1f}ms {1e3 * worst:6.1f}ms")
    if len(found) == 2:
        a, b = found["pocketlm"], found["llama.cpp"]
        print(f"ratio       {a[0] / b[0]:8.2f} {a[1] / b[1]:8.2f}  {a[2] / b[2]:8.2f}")


def single(ref: str, path: str, args: argparse.Namespace) -> None:
    """One client of the server beside `pocketlm run`, the same prompts in turns."""
    served, ran = [], []
    with ours(ref, args.clients) as port:
        asyncio.run(burst(port, [prompt_of(path, 26, 999)], 8))
        for i in range(2 * args.rounds):
            prompt = prompt_of(path, 130, 5000 + i)
            stream = asyncio.run(complete(port, prompt))
            served.append((stream.tokens - 1) / (stream.events[-1] - stream.events[0]))
            command = [sys.executable, "-m", "pocketlm", "run", ref, prompt, "--raw", "--json"]
            command += ["--max-tokens", str(OUTPUT), "--temperature", "0"]
            answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            ran.append(json.loads(answer)["stats"]["decode_tps"])
    a, b = statistics.median(served), statistics.median(ran)
    print(f"\n{ref}: one client decodes {a:.1f} tokens/s, pocketlm run {b:.1f}: ratio {a / b:.2f}")


def long(ref: str, path: str, args: argparse.Namespace) -> None:
    """What a long prompt does to the gaps of streams under way."""

    async def work(port: int, seed: int) -> tuple[list[float], list[float], float]:
        others = [
            asyncio.create_task(complete(port, prompt_of(path, 80, seed + i), 700))
            for i in range(4)
        ]
        await asyncio.sleep(0.7)
        arrived = time.perf_counter()
        stream = await complete(port, prompt_of(path, 3800, seed + 9), 2)
        first = stream.events[0]
        streams = await asyncio.gather(*others)
        gaps = [(b, b - a) for s in streams for a, b in zip(s.events, s.events[1:], strict=False)]
        before = [gap for when, gap in gaps if when < arrived]
        during = [gap for when, gap in gaps if arrived <= when - gap and when <= first]
        return before, during, stream.ttft

    with ours(ref, args.clients, "--speculate", "off") as port:
        asyncio.run(burst(port, [prompt_of(path, 26, 999)], 8))
        rounds = [asyncio.run(work(port, 20_000 + 100 * i)) for i in range(args.rounds)]
    before = [gap for one, _, _ in rounds for gap in one]
    during = [gap for _, one, _ in rounds for gap in one]
    usual = statistics.median(before)
    ratios = [_part(during, q) / usual for q in (0.5, 0.95, 1.0)]
    print(f"\n{ref}: usual gap {1e3 * usual:.1f} ms; while a long prompt is read", end=" ")
    print("p50 {:.2f} ×, p95 {:.2f} ×, longest {:.2f} ×".format(*ratios), end="; ")
    print(f"its TTFT {statistics.median(t for _, _, t in rounds):.2f} s")


def prefix(ref: str, path: str, args: argparse.Namespace) -> None:
    """A request that shares its beginning with an earlier one, beside the same one without it."""
    ratios, same = [], []
    with ours(ref, args.clients) as port:
        for i in range(args.rounds):
            head, tail = prompt_of(path, 1000, 30_000 + i), " Then the end came, and"
            cold = asyncio.run(complete(port, head + " It began so:", 24, logprobs=3))
            warm = asyncio.run(complete(port, head + tail, 24, logprobs=3))
            asyncio.run(request(port, "POST", "/admin/unload", {"model": ref}))
            asyncio.run(complete(port, "Hello", 2))
            again = asyncio.run(complete(port, head + tail, 24, logprobs=3))
            ratios.append(cold.ttft / warm.ttft)
            same.append(warm.text == again.text)
    print(f"\n{ref}: with a prefix in the cache the first token comes", end=" ")
    print(f"{statistics.median(ratios):.1f} × sooner; outputs are the same: {all(same)}")


def overhead(ref: str, path: str, args: argparse.Namespace) -> None:
    """The same requests through HTTP and straight through the engine."""
    through, direct = [], []
    command = [sys.executable, __file__, path, "--direct", str(args.clients), str(args.threads)]
    with (
        ours(ref, args.clients) as port,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        asyncio.run(burst(port, [prompt_of(path, 26, 999)], 8))
        for round_ in range(args.rounds):
            seed = 40_000 + 1000 * round_
            prompts = [prompt_of(path, 130, seed + i) for i in range(args.clients)]
            took, streams = asyncio.run(burst(port, prompts))
            through.append(sum(s.tokens for s in streams) / took)
            process.stdin.write(f"{seed}\n")
            process.stdin.flush()
            direct.append(float(process.stdout.readline()))
        process.stdin.close()
    a, b = statistics.median(through), statistics.median(direct)
    print(f"\n{ref}: {args.clients} clients {a:.1f} tokens/s, the engine alone {b:.1f}", end=": ")
    print(f"HTTP and Python take {100 * (1 - a / b):.1f} %")


def drive(path: str, clients: int, threads: int) -> None:
    """Runs the requests of a seed from stdin in this process; tokens/s to stdout."""
    from pathlib import Path

    from pocketlm.engine.build import build_engine
    from pocketlm.engine.options import EngineOptions
    from pocketlm.engine.prompts import text_side
    from pocketlm.engine.sampling import SamplingParams
    from pocketlm.models import open_model
    from pocketlm.text import StreamDecoder

    spec = open_model(Path(path))
    texts = text_side(spec)
    options = EngineOptions(sequences=clients, threads=threads, kv_tokens=8192)
    engine = build_engine(spec, texts.tokenizer.eos_ids, options).engine
    engine.runner.populate_cache()  # as a server does
    params = SamplingParams(temperature=0, max_tokens=OUTPUT, ignore_eos=True)

    def run(prompts: Sequence[str]) -> float:
        began = time.perf_counter()
        for prompt in prompts:
            decoder = StreamDecoder(texts.tokenizer, continuation=True)
            engine.add(texts.plain(prompt).tokens, params, decoder=decoder)
        while engine.busy:
            engine.step()
        return len(prompts) * OUTPUT / (time.perf_counter() - began)

    run([prompt_of(path, 26, 999)])
    print("ready", flush=True)
    for line in sys.stdin:
        print(run([prompt_of(path, 130, int(line) + i) for i in range(clients)]), flush=True)


def _part(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))]


PARTS = {"load": load, "single": single, "long": long, "prefix": prefix, "overhead": overhead}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("refs", nargs="+")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--no-llamacpp", dest="llamacpp", action="store_false")
    parser.add_argument("--serve-llamacpp", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--direct", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve_llamacpp:
        serve_llamacpp(args.refs[0], *args.serve_llamacpp)
    elif args.direct:
        drive(args.refs[0], *args.direct)
    else:
        from pocketlm.store import Store

        for ref in args.refs:
            for part in args.only.split(","):
                PARTS[part](ref, str(Store().resolve(ref).path), args)


if __name__ == "__main__":
    main()
