"""How fast the rules about documents are, and how far they agree with datatrove's.

    python benchmarks/data_rules.py TEXTS.jsonl.gz WIKI.txt

Texts are JSON lines with `text`, plain or gzipped, or text files, which are cut at
blank lines in documents of about 5,000 characters. Ours and datatrove's (extra
`oracle`) run in turns, document by document, on the same words, ours; each figure is
the median of the rounds. Ours computes every score, datatrove ends at the first rule
that drops a document. What is remembered from one document to the next is forgotten
before each round. With spaCy installed, datatrove also runs as it comes, with spaCy's
words: the share of equal decisions then says what other words change. Last come the
stages that datatrove has no like of.
"""

import argparse
import gzip
import importlib.util
import json
import pathlib
import statistics
import time

from llm import registry
from llm.document import Document
from llm.text import word_breaks as own_words

RULES = ("gopher_quality", "gopher_repetition", "c4", "fineweb")


def texts_of(path, size=5000):
    """The texts of a file."""
    content = pathlib.Path(path).read_bytes()
    if str(path).endswith(".gz"):
        content = gzip.decompress(content)
    lines = content.decode("utf-8").split("\n")
    if "json" in pathlib.Path(path).name:
        return [json.loads(line)["text"] for line in lines if line]
    made, parts = [], []
    for line in lines:
        parts.append(line.strip())
        if not parts[-1] and sum(map(len, parts)) > size:
            made.append("\n".join(parts))
            parts = []
    return [*made, "\n".join(parts)]


def ours():
    """Rule to a function of a document that gives the reason of its drop."""

    def rule(name):
        stage = registry.build("stages", name)
        return lambda document: stage.decide(stage.score(document))

    lines, rest = registry.build("stages", "c4_lines"), rule("c4")

    def c4(document):
        made = lines.apply(document)
        return rest(made[0]) if made else "no line left"

    return {name: c4 if name == "c4" else rule(name) for name in RULES}


def theirs(words):
    """The same by datatrove; `words` is None for its own."""
    import datatrove.pipeline.filters as filters
    import datatrove.utils.word_tokenizers as tokenizers
    from datatrove.data import Document as Theirs

    load = tokenizers.load_word_tokenizer

    class Ours:
        word_tokenize = staticmethod(lambda text: list(own_words.words(text)))

        def span_tokenize(self, line):
            return [(0, 0)] * (own_words.sentences(line) - 1) + [(0, len(line))]

    tokenizer = Ours()

    def rule(made):
        def check(document):
            tokenizers.load_word_tokenizer = (lambda _: tokenizer) if words else load
            result = made.filter(Theirs(text=document.text, id=document.id))
            tokenizers.load_word_tokenizer = load
            return result[1] if isinstance(result, tuple) else ""

        return check

    return {
        "gopher_quality": rule(filters.GopherQualityFilter()),
        "gopher_repetition": rule(filters.GopherRepetitionFilter()),
        "c4": rule(filters.C4QualityFilter()),
        "fineweb": rule(filters.FineWebQualityFilter()),
    }


def forget():
    """Drops what has been remembered of words."""
    own_words.words.cache_clear()
    own_words._CUT.clear()
    if importlib.util.find_spec("datatrove"):
        from datatrove.utils.text import split_into_parts

        split_into_parts.cache_clear()


def seconds(check, documents):
    """Time for all documents, and the decisions."""
    forget()
    start = time.perf_counter()
    found = [check(document) for document in documents]
    return time.perf_counter() - start, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    texts = [text for path in args.texts for text in texts_of(path) if text.strip()]
    documents = [
        Document(str(i), text, "benchmark", str(i), "prose", len(text))
        for i, text in enumerate(texts)
    ]
    size = sum(map(len, texts))
    print(f"{len(texts)} documents, {size / 1e6:.1f}M characters, "
          f"{size // len(texts)} each")  # fmt: skip
    kinds = {"ours": ours()}
    if importlib.util.find_spec("datatrove"):
        kinds["datatrove"] = theirs("ours")
        if importlib.util.find_spec("spacy"):
            kinds["datatrove, spaCy"] = theirs(None)
    for name in (*RULES, "all four"):
        compare(name, kinds, documents, args.rounds)
    for name in ("pii", "harm", "bias", "licence", "language", "normalise"):
        alone(name, documents, size, args.rounds)


def compare(name, kinds, documents, rounds):
    """Prints docs/s of one rule, or of all, by each kind, in turns."""
    times, said = {kind: [] for kind in kinds}, {}
    for _ in range(rounds):
        for kind, rules in kinds.items():
            chosen = list(rules.values()) if name == "all four" else [rules[name]]
            taken, found = seconds(lambda d, c=chosen: [r(d) for r in c], documents)
            times[kind].append(taken)
            said[kind] = [any(reasons) for reasons in found]
    middle = {kind: statistics.median(taken) for kind, taken in times.items()}
    line = f"{name}: ours {len(documents) / middle['ours']:.0f} docs/s"
    for kind in list(kinds)[1:]:
        ratios = [b / a for a, b in zip(times["ours"], times[kind], strict=True)]
        same = sum(a == b for a, b in zip(said["ours"], said[kind], strict=True))
        line += (
            f"; {kind} {len(documents) / middle[kind]:.0f}, ours "
            f"{statistics.median(ratios):.1f} times as fast ({min(ratios):.1f} to "
            f"{max(ratios):.1f}), {same / len(documents):.1%} decided alike"
        )
    print(f"{line}; {sum(said['ours'])} dropped", flush=True)


def alone(name, documents, size, rounds):
    """Prints docs/s of a stage."""
    if name == "language" and not importlib.util.find_spec("py3langid"):
        return
    knobs = {"listed": ("damn", "bloody hell")} if name == "harm" else {}
    stage = registry.build("stages", {"name": name, **knobs})
    run = getattr(stage, "score", None) or stage.apply
    run(documents[0])
    taken = statistics.median(seconds(run, documents)[0] for _ in range(rounds))
    print(f"{name}: {len(documents) / taken:.0f} docs/s, {size / taken / 1e6:.1f}M "
          "characters/s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
