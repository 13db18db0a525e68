"""A look inside a trained run at one text: interpret.json and interpret.html."""

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from llm import files, run_dir
from llm.errors import InputError
from llm.inference import interpretation, load_model, sampling
from llm.inference.decoding import generate
from llm.inference.prompt_rows import check_length, rows_of
from llm.knobs import Positive, section
from llm.nn.contract import has_head, plain_inputs, reads_source
from llm.reports import interpret_page
from llm.workloads import claim, load

_ANSWER = 16  # tokens of an encoder-decoder's answer that are looked at


@section("interpret")
class Interpret:
    """A look inside."""

    # As generate.model_dir.
    model_dir: str = ""
    # The text to look at, of which at most so many tokens.
    prompt: str = "def main():"
    max_tokens: Positive = 48
    # Words of one token each, and triples of them: the third is to what as the second
    # is to the first.
    words: tuple[str, ...] = ()
    analogies: tuple = ()
    # How many tokens are listed each time.
    top: Positive = 5


SECTIONS = (Interpret,)


def run(c: ConfigDict, workdir: str) -> None:
    """Looks at `c.interpret.prompt` and writes what it saw."""
    check(c)
    i = c.interpret
    loaded = load(i.model_dir, workdir)
    claim(c, workdir)
    tokenizer = loaded.tokenizer
    ids = [*tokenizer.start(), *tokenizer.encode(i.prompt)][: i.max_tokens]
    if not has_head(loaded.model):
        raise InputError(
            got=f"a {loaded.config.model.name} without a head, to look into",
            want="a model that predicts tokens: the lens is what each layer would say",
        )
    known = loaded.tokenizer.vocab_size
    if not ids or i.top > known:
        raise InputError(
            got=f"{len(ids)} tokens of interpret.prompt, and interpret.top {i.top}",
            want=f"one token or more, and at most the {known} of the vocabulary",
        )
    check_length(loaded.model, [ids], 0)
    inputs = plain_inputs(np.array([ids], np.int32))
    read = []
    if reads_source(loaded.model):
        # As in generation: the encoder reads the text, the decoder gives its answer.
        (begun,), (read,) = rows_of(loaded.model, tokenizer, [ids])
        (answer,) = generate(
            *load_model.for_decoding(loaded), tokenizer, [ids],
            knobs=sampling.Sampling(temperature=0.0), max_tokens=_ANSWER,
        )  # fmt: skip
        ids = [*begun, *tokenizer.encode(answer.text)[:_ANSWER]]
        inputs = plain_inputs(np.array([ids], np.int32))
        inputs = inputs._replace(source=plain_inputs(np.array([read], np.int32)))
    look = interpretation.look(loaded.model, loaded.params, inputs, top=i.top)

    def word(token: int) -> str:
        # Rows that pad the vocabulary are no word.
        return tokenizer.pieces([token])[0] if token < tokenizer.vocab_size else ""

    def named(pairs):
        return [[word(token), value] for token, value in pairs]

    table_VD = interpretation.embedding_of(loaded.params)[: tokenizer.vocab_size]

    def one(text: str) -> int:
        found = tokenizer.encode(text)
        if len(found) != 1:
            raise InputError(
                got=f"{text!r}, which is {len(found)} tokens: "
                f"{tokenizer.pieces(found)!r}",
                want="words that are one token each",
            )
        return found[0]

    result = {
        "model_dir": i.model_dir or workdir,
        "step": loaded.step,
        "prompt": i.prompt,
        "read": [word(token) for token in read],
        "tokens": [word(token) for token in ids],
        "lens": [
            [
                named(zip(ids_K.tolist(), shares_K.tolist(), strict=True))
                for ids_K, shares_K in zip(ids_TK, shares_TK, strict=True)
            ]
            for ids_TK, shares_TK in zip(look.top_ids, look.top_shares, strict=True)
        ],
        "neighbours": [
            {
                "word": text,
                "near": named(
                    interpretation.neighbours(
                        table_VD, table_VD[one(text)], i.top, (one(text),)
                    )
                ),
            }
            for text in i.words
        ],
        "analogies": [
            {
                "analogy": f"{a!r} is to {b!r} as {x!r} is to",
                "near": named(
                    interpretation.analogy(table_VD, one(a), one(b), one(x), i.top)
                ),
            }
            for a, b, x in i.analogies
        ],
    }
    root = epath.Path(workdir)
    run_dir.write(workdir, "interpret.json", result)
    html = interpret_page.write(result, look.attention)
    files.write_text(root / "interpret.html", html)
    for layer, choices in enumerate(result["lens"], start=1):
        first = ", ".join(f"{text!r} {share:.0%}" for text, share in choices[-1])
        print(f"after layer {layer}: {first}")
    for entry in result["neighbours"]:
        near = ", ".join(f"{text!r} {cosine:.2f}" for text, cosine in entry["near"])
        print(f"near {entry['word']!r}: {near}")
    for entry in result["analogies"]:
        near = ", ".join(f"{text!r} {cosine:.2f}" for text, cosine in entry["near"])
        print(f"{entry['analogy']}: {near}")
    print(f"page: {root / 'interpret.html'}")


def check(c: ConfigDict) -> None:
    """Raises InputError for what cannot be looked at, before anything is read."""
    i = c.interpret
    for entry in i.analogies:
        if not isinstance(entry, tuple) or len(entry) != 3:
            raise InputError(
                got=f"the analogy {entry!r}",
                want="three words, such as (('man', 'king', 'woman'),)",
            )
