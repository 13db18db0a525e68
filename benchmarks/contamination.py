"""Which items of an examination the corpus of a run holds, and in which documents.

    python benchmarks/contamination.py --run=runs/quickstart --items=benchmarks/gsm8k

The run is a directory of which `prepare_data` made the corpus; items are lines of
.jsonl, .txt, .csv or .tsv files. Says what share of the items was found, and lists
them, most runs of words first. The stage `decontaminate` drops such documents.
"""

import argparse
import collections
import json
import pathlib
import sys

from llm.corpus import contamination, storage
from llm.errors import InputError, report_input_error

_SHOWN = 3  # documents of an item


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a run directory")
    parser.add_argument("--items", required=True, help="a file or folder of items")
    parser.add_argument("--words", type=int, default=contamination.WORDS)
    parser.add_argument("--split", default="train", help="of the corpus")
    parser.add_argument("--json", default="", help="a file for all of it")
    args = parser.parse_args()
    try:
        index = contamination.Index(contamination.items(args.items), args.words)
        documents = storage.read(pathlib.Path(args.run) / "corpus", args.split)
    except InputError as error:
        return report_input_error(error)
    held = collections.defaultdict(dict)
    for document in documents:
        for item, runs in index.found(document.text).items():
            held[item][document.id] = runs
    ranked = sorted(held, key=lambda item: (-sum(held[item].values()), item))
    share = len(held) / len(index.items)
    print(
        f"{len(held)} of {len(index.items)} items ({share:.1%}) in "
        f"{len({d for found in held.values() for d in found})} of {len(documents)} "
        f"documents; {index.short} items are too short to tell"
    )
    for item in ranked:
        found = sorted(held[item], key=lambda id: -held[item][id])
        more = ", ..." if len(found) > _SHOWN else ""
        print(f"{item}: {', '.join(found[:_SHOWN])}{more}")
    if args.json:
        made = {item: held[item] for item in ranked}
        pathlib.Path(args.json).write_text(
            json.dumps(made, indent=1) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
