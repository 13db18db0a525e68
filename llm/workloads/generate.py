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
from llm.knobs import Above0, Amount, Count, Positive, Share, ShareAbove0, section
from llm.workloads import claim, load


@section("generate")
class Generate:
    """Continuations."""

    # A trained run directory, or a Hugging Face folder or GGUF file, which is imported
    # into this workdir first; '' is this workdir.
    model_dir: str = ""
    # Texts to continue, or, for an encoder-decoder, to answer.
    prompts: tuple[str, ...] = ("def ",)
    # Whether prompts are what a user says, put in the model's own chat template.
    chat: bool = False
    # Most new tokens, and samples of each prompt.
    max_tokens: Positive = 200
    samples: Positive = 1
    # Beams of a search for the most likely texts, instead of samples; 1 samples. A
    # text's score is its log-probability over length**length_penalty.
    beams: Positive = 1
    length_penalty: float = 1.0
    # 0 is greedy; top_k 0, top_p 1, min_p 0 and repetition_penalty 1 change nothing.
    temperature: Amount = 0.8
    top_k: Count = 0
    top_p: ShareAbove0 = 1.0
    min_p: Share = 0.0
    repetition_penalty: Above0 = 1.0
    # Texts that end a sample.
    stop: tuple[str, ...] = ()


SECTIONS = (Generate,)


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
    if not g.prompts:
        raise InputError(got="no generate.prompts", want="one text or more")
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
