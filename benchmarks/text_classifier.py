"""The classifier of documents beside fastText: accuracy, fitting and scoring.

    python benchmarks/text_classifier.py good.txt bad.txt
    python benchmarks/text_classifier.py good.txt bad.txt --lines

A label is a file of UTF-8: its documents are stretches of 2,000 characters, the first
fifth of them held out, or with `--lines` its lines, a fifth by chance. fastText (extra
`fasttext`) learns from the same texts, in a random order, in lower case and cut into
the same words, with pairs of words, one thread, and its defaults but for the settings
printed. Printed: accuracy and AUC on what is held out, CPU seconds of the fit (for
fastText also of writing its file), and MB of text scored in a CPU second, best of the
rounds; texts come as they are, so cutting them into words is in it for both. fastText,
which by itself cuts at white space alone, is also timed without.
"""

import argparse
import os
import pathlib
import random
import tempfile
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from llm import metrics
from llm.text import linear_classifier
from llm.text.word_breaks import words

_FASTTEXT = ({"lr": 0.1, "epoch": 5}, {"lr": 0.5, "epoch": 5}, {"lr": 0.5, "epoch": 25})


def read(path, lines):
    """(to learn from, held out)."""
    text = pathlib.Path(path).read_text("utf-8")
    size = 2000
    some = [text[at : at + size] for at in range(0, len(text), size)]
    if lines:
        some = sorted({one for one in text.split("\n") if one.strip()})
        random.Random(0).shuffle(some)
    # Stretches stay in order, so that few documents are on both sides.
    return some[len(some) // 5 :], some[: len(some) // 5]


def ours(learned, bits, l2):
    """A function from texts to the probability of the second label."""
    made = linear_classifier.fit(learned, bits=bits, l2=l2)
    return lambda texts: made.score(texts)[:, 1]


def plain(text):
    """What fastText is given: it cuts at white space."""
    return " ".join(words.__wrapped__(text.lower()))


def fasttext_of(learned, settings):
    """The same of fastText."""
    import fasttext

    pairs = [(label, text) for label, some in learned.items() for text in some]
    random.Random(0).shuffle(pairs)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.writelines(f"__label__{label} {plain(text)}\n" for label, text in pairs)
        file.flush()
        made = fasttext.train_supervised(
            file.name, wordNgrams=2, thread=1, verbose=0, **settings
        )
    wanted = f"__label__{list(learned)[1]}"

    def score(texts, cut=plain):
        # What `predict` calls: it fails itself with numpy 2.
        said = (made.f.predict(f"{cut(text)}\n", 2, 0.0, "strict") for text in texts)
        return np.array([{b: a for a, b in some}[wanted] for some in said])

    return score


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs=2)
    parser.add_argument("--lines", action="store_true")
    parser.add_argument("--bits", type=int, default=20)
    parser.add_argument("--l2", type=float, default=1e-6)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    learned, held = {}, {}
    for path in args.files:
        learned[path], held[path] = read(path, args.lines)
    learned = {f"label{n}": some for n, some in enumerate(learned.values())}
    texts = [text for some in held.values() for text in some]
    positive = np.repeat([False, True], [len(some) for some in held.values()])
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{sum(map(len, learned.values()))} texts learned from, {len(texts)} held "
          f"out ({size:.2f} MB)")  # fmt: skip
    cases = {f"ours, l2 {args.l2}": lambda: ours(learned, args.bits, args.l2)}
    for settings in _FASTTEXT:
        cases[f"fastText {settings}"] = lambda s=settings: fasttext_of(learned, s)
    for name, fit in cases.items():
        start = time.process_time()
        score = fit()
        fitted, best = time.process_time() - start, float("inf")
        for _ in range(args.rounds):
            start = time.process_time()
            p = score(texts)
            best = min(best, time.process_time() - start)
        print(f"{name}: accuracy {((p >= 0.5) == positive).mean():.4f}, "
              f"AUC {metrics.area_under_roc(p, positive):.4f}, "
              f"fit {fitted:.1f} s, {size / best:.1f} MB/s")  # fmt: skip
        if name.startswith("fastText"):
            cut = [plain(text) for text in texts]
            start = time.process_time()
            score(cut, str)
            alone = time.process_time() - start
            print(f"  of words that are cut already: {size / alone:.1f} MB/s")


if __name__ == "__main__":
    main()
