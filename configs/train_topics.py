"""Topics of your documents by the vectors of your model, for the stage `topic`.

    python -m llm.main --config=configs/train_topics.py --workdir=runs/topics

groups the standard library's files by what the quickstart's model makes of them, in a
minute. `configs/train_topics.py:text=jsonl:RUN/corpus/train.jsonl,count=32` takes a
corpus of yours, `--config.embed.model_dir` another model: a run, or a Hugging Face
folder. It writes topics/, a classifier that tells topics by words, and
train_topics.json: of each topic its texts, words and nearest documents, and how often
the classifier agrees with the vectors. Expect eight topics that you can put a name to,
and an agreement of some 0.8. Then

    --config.data.stages="(..., 'topic')"
    --config.data.stage.topic.model_path=runs/topics/topics
    --config.data.mixture.by=topic --config.data.mixture.temperature=3.0

gives rare topics more of a training.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, text="", count=8, debug=False)
    c = config.base("train_topics")
    c.embed.model_dir = "runs/quickstart"
    c.topics.count = arg.count
    if arg.text:
        c.data.source = config.source(arg.text)
    return config.debug(c) if arg.debug else c
