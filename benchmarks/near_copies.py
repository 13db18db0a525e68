"""How well MinHash finds near copies, beside the exact similarity of each pair.

    python benchmarks/near_copies.py PAIRS.tsv FIRST_FOLDER SECOND_FOLDER

PAIRS.tsv has a head and, a line, the name of a text of each folder (NAME.txt), their
similarity as whoever made the pairs measured it, and 1 or 0: whether they are copies.
Each pair goes through the stage `minhash` alone, at several thresholds. Shown are
precision, recall and F1 of what it drops, and how far its estimates are from the
similarity of the two sets of runs of five words.
"""

import argparse
import csv
import pathlib

import numpy as np

from llm.document import Document
from llm.stages import minhash

_THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_WORDS = 5


def matched(stage, first: str, second: str) -> bool:
    """Whether the stage would drop the second text behind the first."""
    rows = [
        stage.rows(Document(name, text, "", name, "", len(text), {}))
        for name, text in (("first", first), ("second", second))
    ]
    if not all(map(len, rows)):
        return False
    both = np.concatenate(rows)
    meet = (stage.keys(both[:1]) == stage.keys(both[1:])).any()
    return bool(meet) and any(match.reason for match in stage.reduce(both))


def similarity(first: str, second: str) -> float:
    """The Jaccard similarity of the two sets of runs of words."""
    one, other = (minhash.shingles(text, _WORDS) for text in (first, second))
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=pathlib.Path)
    parser.add_argument("folders", type=pathlib.Path, nargs=2)
    args = parser.parse_args()
    with args.pairs.open(encoding="utf-8") as file:
        pairs = list(csv.reader(file, delimiter="\t"))[1:]
    named = list(zip(*pairs, strict=True))[:2]
    texts = [
        [
            (folder / f"{name}.txt").read_text(errors="replace", encoding="utf-8")
            for name in names
        ]
        for folder, names in zip(args.folders, named, strict=True)
    ]
    copies = np.array([pair[3] == "1" for pair in pairs])
    exact = np.array([similarity(*both) for both in zip(*texts, strict=True)])
    said = np.array([float(pair[2]) for pair in pairs])
    print(f"{len(pairs)} pairs, {copies.sum()} copies; our similarity differs from "
          f"theirs by {np.abs(exact - said).max():.4f} at most")  # fmt: skip
    print(f"{'threshold':>9}{'precision':>11}{'recall':>8}{'F1':>7}"
          f"{'F1 of the exact similarity':>28}")  # fmt: skip
    for threshold in _THRESHOLDS:
        stage = minhash.make(threshold=threshold, link_threshold=threshold)
        found = np.array([matched(stage, *both) for both in zip(*texts, strict=True)])
        precision, recall, f1 = figures(found, copies)
        best = figures(exact >= threshold, copies)[2]
        print(f"{threshold:9}{precision:11.3f}{recall:8.3f}{f1:7.3f}{best:28.3f}")


def figures(found, copies) -> tuple[float, float, float]:
    """(precision, recall, F1)."""
    both = (found & copies).sum()
    precision, recall = both / max(1, found.sum()), both / copies.sum()
    return precision, recall, 2 * both / (found.sum() + copies.sum())


if __name__ == "__main__":
    main()
