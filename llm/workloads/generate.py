"""Continues prompts with a trained run: samples.txt, generate.json."""

import json
import re

import jax
from etils import epath
from ml_collections import ConfigDict

from llm import atomic, run_directory
from llm.errors import InputError
from llm.inference import load, sampling
from llm.inference.generate import generate


def run(c: ConfigDict, workdir: str) -> None:
    """Samples `c.generate.samples` continuations of every prompt and prints them."""
    check(c)
    g = c.generate
    device = jax.devices()[0]
    # First, so that a wrong path leaves nothing behind.
    loaded = load.load(g.model_dir or workdir, device)
    run_directory.claim(
        workdir, c.to_dict(), device=device.device_kind, devices=len(jax.devices())
    )
    knobs = _sampling(c)
    prompts = [prompt for prompt in g.prompts for _ in range(g.samples)]
    made = generate(
        load.for_decoding(loaded),
        loaded.params,
        loaded.tokenizer,
        prompts,
        knobs=knobs,
        max_tokens=g.max_tokens,
        stop="|".join(re.escape(text) for text in g.stop),
        seed=c.seed,
    )
    samples = [
        {"prompt": prompt, "completion": one.text, "stop_reason": one.stop_reason}
        for prompt, one in zip(prompts, made, strict=True)
    ]
    text = "\n".join(
        f"----- {number}: {s['stop_reason']} -----\n{s['prompt']}{s['completion']}\n"
        for number, s in enumerate(samples, start=1)
    )
    print(text)
    root = epath.Path(workdir)
    atomic.write_text(root / "samples.txt", text)
    result = {"samples": samples, "sampling": vars(knobs), "step": loaded.step}
    atomic.write_text(root / "generate.json", json.dumps(result, indent=1) + "\n")


def check(c: ConfigDict) -> None:
    """Raises InputError for what cannot be sampled, before anything is read."""
    g = c.generate
    _sampling(c)
    if g.max_tokens < 1 or g.samples < 1 or not g.prompts:
        raise InputError(
            got=f"generate.max_tokens {g.max_tokens}, samples {g.samples} and "
            f"{len(g.prompts)} prompts",
            want="one or more of each",
        )
    if "" in g.stop:
        raise InputError(
            got="an empty text in generate.stop",
            want="texts of one character or more",
            do="stop=() never stops",
        )


def _sampling(c: ConfigDict) -> sampling.Sampling:
    g = c.generate
    return sampling.Sampling(
        temperature=g.temperature,
        top_k=g.top_k,
        top_p=g.top_p,
        min_p=g.min_p,
        repetition_penalty=g.repetition_penalty,
    )
