"""Who is named in a corpus, near which words, and what filters have changed in it.

    python benchmarks/bias.py --before=runs/raw --after=runs/filtered

Both are run directories of which `prepare_data` made the corpus, such as the same
source without and with a stage. --groups and --themes are folders of NAME.txt with a
word or phrase a line, for lists of one's own; `llm/associations.py` has the others.
"""

import argparse
import pathlib
import sys

from llm import associations
from llm.data import corpus
from llm.errors import InputError, report_input_error


def documents(run):
    """The documents of all splits of a run's corpus."""
    folder = pathlib.Path(run) / "corpus"
    for split in corpus.manifest(folder)["splits"]:
        yield from corpus.read(folder, split)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", required=True, help="a run directory")
    parser.add_argument("--after", required=True, help="another")
    parser.add_argument("--groups", default="", help="a folder of lists")
    parser.add_argument("--themes", default="", help="a folder of lists")
    parser.add_argument("--window", type=int, default=10, help="words on either side")
    args = parser.parse_args()
    try:
        finder = associations.Finder(
            associations.lists(args.groups, associations.GROUPS),
            associations.lists(args.themes, associations.THEMES),
            args.window,
        )
        counts = [associations.count(documents(run), finder)
                  for run in (args.before, args.after)]  # fmt: skip
    except InputError as error:
        return report_input_error(error)
    print(associations.report(*counts, finder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
