"""What share of texts a word list finds something in: false alarms on harmless ones.

    python benchmarks/guard.py --words=LIST.txt TEXTS.jsonl:question PROMPTS.csv:prompt

Each text is a field of a line of JSON or of a row of CSV; with `:field:column=value`,
only of rows that have this value. Of texts that are known to be harmless, the share is
that of false alarms; of others, of what the list catches. Printed for each: the share,
its 95 % interval (Wilson), and the words that were found most.
"""

import argparse
import collections
import csv
import json
import math
import pathlib

from llm.guards import words


def texts_of(where):
    """The texts of `path:field[:column=value]`."""
    path, field, *only = where.split(":")
    column, _, value = only[0].partition("=") if only else ("", "", "")
    with pathlib.Path(path).open(newline="", encoding="utf-8") as file:
        csv_like = path.endswith((".csv", ".tsv"))
        rows = csv.DictReader(file) if csv_like else map(json.loads, file)
        return [row[field] for row in rows if not column or row[column] == value]


def interval(hits, count, z=1.96):
    """Wilson's interval of a share."""
    p, n = hits / count, count
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", required=True, help="a file with a word a line")
    parser.add_argument("texts", nargs="+", help="path:field[:column=value]")
    args = parser.parse_args()
    find, _ = words.make(path=args.words)
    for where in args.texts:
        texts, found = texts_of(where), collections.Counter()
        hits = 0
        for text in texts:
            spans = find(text)
            hits += bool(spans)
            found.update({text[a:b].lower() for a, b in spans})
        low, high = interval(hits, len(texts))
        most = ", ".join(f"{word} {n}" for word, n in found.most_common(5))
        print(f"{where}: {hits} of {len(texts)} texts, {hits / len(texts):.2%} "
              f"({low:.2%} to {high:.2%}); {most or 'nothing found'}")  # fmt: skip


if __name__ == "__main__":
    main()
