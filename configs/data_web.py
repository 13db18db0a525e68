"""From crawled pages to a clean corpus with its data card, and a small model of it.

    python -m llm.main --config=configs/data_web.py:path=runs/crawl/pages \\
        --workdir=runs/web

`path` is a folder of WARC or WET files, of `configs/crawl.py` or of Common Crawl. Main
texts are extracted; languages told; pages dropped that repeat themselves or are no
prose (Gopher, FineWeb); copies, near copies and repeated paragraphs removed; personal
data redacted. Expected: `runs/web/data_card.html`, which says of every page why it
stayed or went, token shards in `runs/web/tokens`, and a report of the model.

Whole hosts are held out for validation and test; `:group=page` does with fewer than
three. `--config.workload=prepare_data` stops behind the corpus;
`--config.data.work_dir=runs/steps` keeps all steps, so that another threshold, such as
`--config.data.stage.gopher_quality.least_words=30` with another workdir, takes seconds.
Gopher's stop words are English: they are off here. Its words are what stands between
spaces; ours are also punctuation, and each letter of a script without spaces, so the
share of words with a letter and their mean length may be smaller here.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, path="runs/crawl/pages", group="host", debug=False)
    c = config.load(__file__, "quickstart")
    c.data.source = registry.spec("sources", "warc", path=arg.path, group=arg.group)
    c.data.stages = (
        "normalise",
        "language",
        "gopher_repetition",
        "gopher_quality",
        "fineweb",
        "exact_dedup",
        "minhash",
        "part_dedup",
        "pii",
    )
    c.data.stage.language.label = True
    c.data.stage.gopher_quality.update(
        least_stop_words=0, least_alphabetic=0.6, least_mean_length=1.0
    )
    c.evaluate.tasks = ("perplexity",)
    c.generate.prompts = ("The ",)
    return config.debug(c) if arg.debug else c
