"""How well the main text of pages is found, against texts marked by people.

    python benchmarks/extraction.py FOLDER

FOLDER is a clone of scrapinghub's article-extraction-benchmark: html/ID.html.gz and
ground-truth.json, 181 news pages. Shown are the means over pages of precision and
recall of runs of four words, their F1, and pages a second on one core. The clone's own
evaluate.py reads what `--output=FILE` writes.
"""

import argparse
import collections
import gzip
import json
import pathlib
import re
import time

from llm.corpus import extract

_RUN = 4


def runs(text: str) -> collections.Counter:
    """The runs of four words of a text; all its words, if they are fewer."""
    found = re.findall(r"\w+", text)
    last = max(1, len(found) - _RUN + 1) if found else 0
    return collections.Counter(tuple(found[n : n + _RUN]) for n in range(last))


def compared(wanted: str, made: str) -> tuple[float | None, float | None]:
    """(precision, recall) of a page; None where there is nothing to divide by."""
    want, have = runs(wanted), runs(made)
    both = (want & have).total()
    return (
        both / have.total() if have else None,
        both / want.total() if want else None,
    )


def mean(values) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path)
    args = parser.parse_args()
    gold = json.loads((args.folder / "ground-truth.json").read_text("utf-8"))
    html = {
        id: gzip.decompress((args.folder / f"html/{id}.html.gz").read_bytes())
        for id in gold
    }
    print(f"{len(gold)} pages\n{'':<14}{'F1':>7}{'precision':>11}{'recall':>8}"
          f"{'pages/s':>9}{'refused':>9}")  # fmt: skip
    for extractor in extract.EXTRACTORS:
        with extract.pages(extractor, seconds=60) as page:
            page(b"<p>Begun.</p>")
            start = time.perf_counter()
            # As the benchmark has it: the pages are UTF-8.
            made = {id: page(content, "utf-8") for id, content in html.items()}
            seconds = time.perf_counter() - start
        texts = {id: answer.get("text", "") for id, answer in made.items()}
        figures = [compared(gold[id]["articleBody"], texts[id]) for id in gold]
        precision, recall = map(mean, zip(*figures, strict=True))
        refused = sum("refused" in answer for answer in made.values())
        f1 = 2 * precision * recall / (precision + recall)
        print(f"{extractor:<14}{f1:7.3f}{precision:11.3f}{recall:8.3f}"
              f"{len(gold) / seconds:9.1f}{refused:9}")  # fmt: skip
        if args.output:
            told = {id: {"articleBody": text} for id, text in texts.items()}
            path = args.output.with_stem(f"{args.output.stem}-{extractor}")
            path.write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
