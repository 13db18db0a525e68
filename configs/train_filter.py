"""A classifier of documents, for the stage `classifier`: quality, harm, or any label.

    python -m llm.main --config=configs/train_filter.py --workdir=runs/filter

tells the standard library's code from its prose: the mechanics, in seconds.
`configs/train_filter.py:good=jsonl:GOOD,bad=warc:BAD` learns from texts of yours, read
as `text=` of the quickstart reads them; `--config.filter.sources` names any labels, and
`--config.data.source` with `filter.field` takes those of documents. It writes
classifier/ and train_filter.json: accuracy, AUC, precision and recall by threshold,
calibration and the words that weigh most, on a tenth of the texts. Probabilities
presume that labels are equally frequent: choose a threshold by what it drops of your
corpus. Expect 0.99 of the default's documents to be told apart; `:debug` is the
smallest form.
"""

from llm import config
from llm.errors import InputError


def get_config(arg=None):
    arg = config.parse_arg(arg, good="", bad="", debug=False)
    c = config.base("train_filter")
    if bool(arg.good) != bool(arg.bad):
        raise InputError(
            got="only one of good= and bad=",
            want="both, such as good=jsonl:good.jsonl,bad=jsonl:bad.jsonl",
        )
    if arg.good:
        c.filter.sources = (("good", arg.good), ("bad", arg.bad))
    return config.debug(c) if arg.debug else c
