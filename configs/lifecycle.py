"""The whole life of a small model, on two CPU cores, in under twenty minutes.

    python -m llm.main --config=configs/lifecycle.py --workdir=runs/life

Steps, each a run directory of its own in the workdir: `pretrain` (corpus, tokenizer,
training, evaluation, samples: configs/quickstart.py), `instruct` (it learns to answer:
configs/sft.py), `prefer` (and to prefer: configs/dpo.py), `compress` (to eight bits),
`score` (evaluation of what became of it) and `serve` (a server of it, asked through
HTTP). lifecycle.html shows all of it. The same command goes on where it was stopped. A
field of a step is `--config.runs.instruct.train.epochs=2`, and
`--config.order="('pretrain','instruct')"` takes fewer steps; `:debug` is the smallest
form. Needs the extras `hf` and `serve`.
"""

from ml_collections import ConfigDict

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    debug = ",debug" if arg.debug else ""

    def load(name, text=""):
        return config.load(__file__, name, (text + debug).strip(","))

    c = config.base("lifecycle")
    c.order = ("pretrain", "instruct", "prefer", "compress", "score", "serve")
    c.runs = ConfigDict()
    c.runs.pretrain = load("quickstart")
    c.runs.instruct = load("sft", "model={workdir}/pretrain")
    c.runs.prefer = load("dpo", "model={workdir}/instruct,adapter=lora")
    c.runs.compress = load("compress", "model={workdir}/prefer,method=int8")
    c.runs.compress.compress.text = "{workdir}/prefer/corpus/test.jsonl"
    c.runs.score = score = load("evaluate")
    score.evaluate.update(model_dir="{workdir}/compress", tasks=("perplexity",))
    score.data.corpus_dir = "{workdir}/pretrain"
    c.runs.serve = serve = load("serve")
    config.extend(serve, "selftest")
    serve.serve.update(model_dir="{workdir}/compress", port=0)
    serve.generate.update(
        chat=True, prompts=config.QUESTION, max_tokens=64, temperature=0.0
    )
    if arg.debug:
        serve.generate.max_tokens = 16
    if not arg.debug:
        c.runs.pretrain.train.update(steps=1200, validate_every=300)
        c.runs.instruct.train.update(epochs=1.0, seq_len=512)
        c.runs.prefer.train.update(epochs=0.0, steps=60, validate_every=30)
    return config.debug(c) if arg.debug else c
