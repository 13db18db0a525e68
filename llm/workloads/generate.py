"""Continues prompts with a trained run: samples.txt, generate.json."""

import re

from etils import epath
from ml_collections import ConfigDict

from llm import files, run_dir
from llm.data import chat
from llm.errors import InputError
from llm.inference import load_model, sampling
from llm.inference.decoding import generate, search
from llm.inference.prompt_rows import check_generates
from llm.workloads import claim, load


def run(c: ConfigDict, workdir: str) -> None:
    """Samples `c.generate.samples` continuations of every prompt and prints them."""
    check(c)
    g = c.generate
    loaded = load(g.model_dir, workdir)
    check_generates(loaded.model)
    prompts = list(g.prompts)
    if g.chat:
        said = [[{"role": "user", "content": prompt}] for prompt in prompts]
        prompts = [chat.prompt_ids(loaded.tokenizer, messages) for messages in said]
    claim(c, workdir)
    model = (*load_model.for_decoding(loaded), loaded.tokenizer)
    until = {
        "max_tokens": g.max_tokens,
        "stop": "|".join(re.escape(text) for text in g.stop),
    }
    if g.beams > 1:
        how = {"beams": g.beams, "length_penalty": g.length_penalty}
        made = search(*model, prompts, best=g.samples, **how, **until)
    else:
        knobs = _sampling(c)
        how = vars(knobs)
        repeated = [prompt for prompt in prompts for _ in range(g.samples)]
        made = generate(*model, repeated, knobs=knobs, seed=c.seed, **until)
    given = [prompt for prompt in g.prompts for _ in range(g.samples)]
    samples = [
        {"prompt": prompt, "completion": one.text, "stop_reason": one.stop_reason}
        for prompt, one in zip(given, made, strict=True)
    ]
    between = "\n\n" if g.chat else ""
    text = "\n".join(
        f"----- {number}: {s['stop_reason']} -----\n"
        f"{s['prompt']}{between}{s['completion']}\n"
        for number, s in enumerate(samples, start=1)
    )
    print(text)
    root = epath.Path(workdir)
    files.write_text(root / "samples.txt", text)
    result = {"samples": samples, "sampling": how, "step": loaded.step}
    run_dir.write(workdir, "generate.json", result)


def check(c: ConfigDict) -> None:
    """Raises InputError for what cannot be sampled, before anything is read."""
    g = c.generate
    _sampling(c)
    if min(g.max_tokens, g.samples, g.beams, len(g.prompts)) < 1:
        raise InputError(
            got=f"generate.max_tokens {g.max_tokens}, samples {g.samples}, "
            f"beams {g.beams} and {len(g.prompts)} prompts",
            want="one or more of each",
        )
    if g.beams > 1 and (g.temperature or g.samples > g.beams):
        raise InputError(
            got=f"generate.beams {g.beams} with temperature {g.temperature} and "
            f"samples {g.samples}",
            want="temperature 0, as a search does not sample, and as many samples as "
            "beams at most",
        )
    if not all(isinstance(text, str) for text in (*g.prompts, *g.stop)):
        raise InputError(
            got=f"generate.prompts {g.prompts} and stop {g.stop}",
            want="texts, such as ('def f(x):', 'import')",
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
