"""Who is named in a corpus, near which words, and what filters have changed in it.

    python benchmarks/bias.py --before=runs/raw --after=runs/filtered

Both are run directories of which `prepare_data` made the corpus, such as the same
source without and with a stage. --groups and --themes are folders of NAME.txt with a
word or phrase a line, for lists of one's own; `llm/text/cooccurrence.py` has the
others.
"""

import argparse
import pathlib
import sys

from llm.corpus import storage
from llm.errors import InputError, report_input_error
from llm.text import cooccurrence


def documents(run):
    """The documents of all splits of a run's corpus."""
    folder = pathlib.Path(run) / "corpus"
    for split in storage.manifest(folder)["splits"]:
        yield from storage.read(folder, split)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", required=True, help="a run directory")
    parser.add_argument("--after", required=True, help="another")
    parser.add_argument("--groups", default="", help="a folder of lists")
    parser.add_argument("--themes", default="", help="a folder of lists")
    parser.add_argument("--window", type=int, default=10, help="words on either side")
    args = parser.parse_args()
    try:
        finder = cooccurrence.Finder(
            cooccurrence.lists(args.groups, cooccurrence.GROUPS),
            cooccurrence.lists(args.themes, cooccurrence.THEMES),
            args.window,
        )
        counts = [cooccurrence.count(documents(run), finder)
                  for run in (args.before, args.after)]  # fmt: skip
    except InputError as error:
        return report_input_error(error)
    print(cooccurrence.report(*counts, finder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
