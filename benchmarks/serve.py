"""Output tokens a second of concurrent requests: the server and `generate`, in turns.

    python benchmarks/serve.py --model=runs/imported     # a run directory or GGUF file
    python benchmarks/serve.py --requests=16 --new=128 --rounds=3

Requests of unequal prompts come at once; each wants so many greedy tokens, ends
ignored. Ours is the server of `configs/serve.py`, asked over HTTP by as many threads.
The peer is `transformers` in CPU PyTorch with the same weights: its `generate` for one
request after the other, which is what a loop around it does, and for all of them as one
batch that is padded on the left, which needs them all to be there and to end together.
Both in float32 and in bfloat16; the best of each kind is timed in turns with ours
(`in_turns.py`). Also printed: the time to the first token of a request, ours, as a
share of the whole.

Needs the extras `serve` and, for the peer, `oracle`.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

from decode import prepared, smollm
from in_turns import best_forms, in_turns

from llm import process

ROOT = pathlib.Path(__file__).parent.parent


def prompts(count):
    """Rows of token ids, 24 to 99 of them, the same for all sides."""
    import numpy as np

    rng = np.random.default_rng(0)
    lengths = rng.integers(24, 100, count)
    return [rng.integers(1000, 40_000, n).tolist() for n in lengths]


@contextlib.contextmanager
def server(run, slots, folder):
    """The address of a server that runs meanwhile."""
    knobs = {"model_dir": run, "port": 0, "slots": slots, "context": 1024}
    words = ["--config=configs/serve.py", f"--workdir={folder}"]
    words += [f"--config.serve.{name}={value}" for name, value in knobs.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "llm.main", *words],
        cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True,
     encoding="utf-8")  # fmt: skip
    try:
        found = (re.search(r"at (http://\S+)", line) for line in process.stdout)
        address = next(filter(None, found), None)
        if address is None:
            sys.exit("the server did not start")
        yield address[1]
    finally:
        process.terminate()
        process.wait()


def ours(address, count, new):
    """A client with a thread a request."""
    import httpx

    def one(ids, firsts):
        start = time.perf_counter()
        body = {
            "prompt": ids, "max_tokens": new, "temperature": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        made = 0
        with httpx.stream(
            "POST", f"{address}/v1/completions", json=body, timeout=600
        ) as reply:
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    if not made:
                        firsts.append(time.perf_counter() - start)
                    made = made or 1
                    usage = json.loads(line[6:])["usage"]
                    made = usage["completion_tokens"] if usage else made
        if made != new:
            raise RuntimeError(f"{made} tokens, not {new}")

    def work():
        firsts, start = [], time.perf_counter()
        threads = [
            threading.Thread(target=one, args=(ids, firsts)) for ids in prompts(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        if len(firsts) != count:
            raise RuntimeError("a request failed")
        middle = sorted(firsts)[count // 2]
        print(f"  ours: first token after {middle:.2f} s of {seconds:.2f}", flush=True)
        return seconds

    return {"requests": work}


def peer(folder, count, new, dtype, how):
    """`generate` of transformers."""
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()
    rows = prompts(count)
    greedy = {
        "do_sample": False, "max_new_tokens": new, "min_new_tokens": new,
        "pad_token_id": 0,
    }  # fmt: skip

    def generate(ids, mask):
        made = model.generate(input_ids=ids, attention_mask=mask, **greedy)
        if made.shape[1] != ids.shape[1] + new:
            raise RuntimeError("too few tokens")

    def work():
        start = time.perf_counter()
        if how == "one by one":
            for row in rows:
                ids = torch.tensor([row])
                generate(ids, torch.ones_like(ids))
        else:
            most = max(map(len, rows))
            ids = torch.tensor([[0] * (most - len(row)) + row for row in rows])
            mask = torch.tensor(
                [[0] * (most - len(row)) + [1] * len(row) for row in rows]
            )
            generate(ids, mask)
        return time.perf_counter() - start

    return {"requests": work}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="", help="a run directory or a GGUF file")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", default="float32,bfloat16", help="of the peer")
    parser.add_argument("--no-peer", action="store_true")
    args = parser.parse_args()
    count, new = args.requests, args.new
    amounts = {"requests": count * new}
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        model = os.path.abspath(args.model) if args.model else smollm()
        run, folder, _ = prepared(model, scratch)
        address = stack.enter_context(server(run, args.slots, f"{scratch}/serve"))
        chosen, options = {}, {"server": (address, count, new)}
        for label, worker in best_forms("ours", ours, options, amounts).values():
            chosen["ours", label] = worker
        for how in () if args.no_peer else ("one by one", "as one batch"):
            options = {
                f"{dtype}, {how}": (folder, count, new, dtype, how)
                for dtype in args.dtypes.split(",")
            }
            found = best_forms("transformers", peer, options, amounts)
            for label, worker in found.values():
                chosen["transformers", label] = worker
        in_turns(chosen, "requests", count * new, args.rounds)
        for worker in chosen.values():
            worker.stop()


if __name__ == "__main__":
    process.prepare()
    main()
