"""Learning from rewards: answers that are judged better become likelier (GRPO).

    python -m llm.main --config=configs/grpo.py --workdir=runs/grpo

By default all of it happens here, in some minutes on two CPU cores: `start` teaches a
small model by examples what an answer to a sum looks like, `{"answer": 42}`, until it
gets a few of them right; `grpo` then samples answers and rewards those whose number is
right. The evaluation at its end, of sums that it never saw, stands beside that of the
start. `seed=1` is another model.

    python -m llm.main --config=configs/grpo.py:model=runs/sft,data=sums.jsonl \\
        --workdir=runs/reasons --config.rollouts.rewards="('number','length')"

`model` is as in `configs/sft.py`, `data=PATH` as there, too: the prompt of a record is
asked, its answer is the reference that rewards compare with. `adapter=lora` trains
low-rank updates, `beta=0.04` holds the model near the one it began with. Rewards are
files of `llm/rewards/`, or of your own (docs/extending.md); docs/feedback.md says how
to read the log.
"""

from ml_collections import ConfigDict

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(
        arg, model="", data="", adapter="full", beta=0.0, seed=0, debug=False
    )
    if not arg.model:
        return _whole(arg)
    c = _learn(arg, arg.model)
    if arg.data:
        config.records(c, arg.data, task="write")
        c.generate.update(chat=config.chats(arg.data))
        c.evaluate.task.generation.chat = c.generate.chat
    return _debug(c) if arg.debug else c


def _debug(c: ConfigDict) -> ConfigDict:
    c = config.debug(c)
    c.data.source.max_documents = 400
    c.objective.update(group=4, max_tokens=16)
    return c


def _whole(arg) -> ConfigDict:
    """Examples first, then rewards, of a small model and sums."""
    c = config.base("lifecycle")
    c.order = ("start", "grpo")
    c.runs = ConfigDict({"start": _start(arg)})
    c.runs.grpo = g = _learn(arg, "{workdir}/start")
    g.evaluate.before = True
    if arg.debug:
        c.runs.start, c.runs.grpo = config.debug(c.runs.start), _debug(g)
        c.runs.start.data.source.max_documents = 400
    return c


def _start(arg) -> ConfigDict:
    c = config.base("pipeline")
    c.seed = arg.seed
    _sums(c)
    c.tokenizer.update(kind="char", vocab_size=300)
    c.model = registry.spec(
        "models", "llama", layers=3, width=128, heads=4, kv_heads=4, head_dim=32,
        mlp=344, how="unroll",
    )  # fmt: skip
    c.objective = registry.spec("objectives", "sft")
    c.optimizer.update(name="adamw", learning_rate=2e-3, weight_decay=0.01)
    c.data.source.plain = 0.9
    c.train.update(steps=800, batch_size=32, seq_len=64, log_every=50)
    c.train.update(dtype="float32")
    c.evaluate.update(tasks=("generation",), batch_size=128)
    c.evaluate.task.generation.update(max_tokens=24, limit=400)
    c.generate.prompts = ()
    return c


def _learn(arg, model: str) -> ConfigDict:
    c = config.base("pipeline")
    c.seed, c.init_from = arg.seed, model
    _sums(c)
    c.objective = registry.spec(
        "objectives", "grpo", group=16, max_tokens=20, beta=arg.beta
    )
    c.rollouts.rewards = ("number",)
    c.rollouts.reward.number.key = "" if arg.data else "answer"
    c.adapter = registry.spec("adapters", arg.adapter)
    c.optimizer.update(name="adamw", learning_rate=3e-4, weight_decay=0.0, b2=0.99)
    c.schedule.update(name="linear", warmup=0.02, final=0.1)
    c.train.update(steps=150, batch_size=256, seq_len=32, log_every=10)
    c.train.update(dtype="float32", validate_every=50, validation_sequences=128)
    c.train.update(checkpoint_every=100, overfit_gap=1e9)
    c.evaluate.update(tasks=("generation",), batch_size=128)
    c.evaluate.task.generation.update(max_tokens=24, limit=400)
    c.generate.prompts = ()
    return c


def _sums(c: ConfigDict) -> None:
    c.data.source = registry.spec("sources", "arithmetic", most=49)
    c.data.test_fraction = 0.15
    c.data.stages = ()
