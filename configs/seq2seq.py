"""Sequence to sequence with a T5: here, from a function to what it is for.

    python -m llm.main --config=configs/seq2seq.py --workdir=runs/describe

The functions of the standard library are the sources and the first paragraphs of their
docstrings the targets; evaluate.json says how well those of held-out packages are
guessed, a token at a time, and how like them what it writes is: BLEU and ROUGE, where
the extra `eval` is installed, exact match and F1 in any case. `data=PATH` is a file of
your own records, `{"source": ..., "target": ...}`: translations, summaries. `model=` is
a T5 to begin with, as in `configs/sft.py`; without it a small one begins with random
weights.
"""

import importlib.util

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, model="", data="", adapter="full", debug=False)
    c = config.base("pipeline")
    c.tokenizer.update(vocab_size=4096, kind="unigram")
    c.model = registry.spec(
        "models", "t5", layers=4, width=192, heads=4, head_dim=48, mlp=512,
    )  # fmt: skip
    c.init_from = arg.model
    config.records(c, arg.data, task="describe")
    c.objective = registry.spec("objectives", "seq2seq")
    c.adapter = registry.spec("adapters", arg.adapter)
    c.optimizer.update(
        name="adamw", learning_rate=1e-4 if arg.model else 1e-3, weight_decay=0.01
    )
    c.schedule.update(name="linear", warmup=0.05, final=0.0)
    c.train.update(epochs=4.0, batch_size=8, seq_len=768, log_every=10)
    c.train.update(validate_every=100, checkpoint_every=100)
    c.evaluate.update(tasks=("generation",), objective=True, before=bool(c.init_from))
    eval_extra = all(map(importlib.util.find_spec, ("sacrebleu", "rouge_score")))
    c.evaluate.task.generation = registry.spec(
        "evals", "generation", max_tokens=64, limit=200,
        metrics=("bleu", "rouge") if eval_extra else (),
    )  # fmt: skip
    c.generate.update(temperature=0.0, max_tokens=64)
    c.generate.prompts = (
        "def mean(values):\n    return sum(values) / len(values)",
        "def exists(path):\n    try:\n        os.stat(path)\n    except OSError:\n"
        "        return False\n    return True",
    )
    if arg.debug:
        c = config.debug(c)
        c.data.source.max_documents = 0 if arg.data else 60
        c.train.update(seq_len=256)
        c.evaluate.task.generation.update(limit=4, max_tokens=8)
    return c
