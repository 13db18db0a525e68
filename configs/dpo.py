"""Preference tuning: answers that people prefer become likelier (DPO, ORPO, KTO).

    python -m llm.main --config=configs/dpo.py:model=runs/sft --workdir=runs/dpo

`model` is as in `configs/sft.py`; `data=PATH` holds records of prompt, chosen and
rejected, such as the server writes of what its users like, or whole dialogues that
begin alike, as HH-RLHF and UltraFeedback have them (`llm/data/record_forms.py`).
Without it: the functions of the standard library, where the body that belongs to a
signature is preferred to that of another function. `adapter=lora` trains low-rank
updates, and needs no second copy of the model. The log shows the share of pairs whose
margin is on the right side as `accuracy`; it starts at 0, where there is no margin yet.

`form=ipo` and `form=hinge` are other losses of a pair. `objective=orpo` learns the
chosen answers, too, and needs no reference: it can begin with a model that was not
tuned. `objective=kto` takes answers that are labelled one by one, of records
`{"prompt": ..., "completion": ..., "label": true}`, and pairs as two of them.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(
        arg, model="quickstart", data="", adapter="full", objective="dpo",
        form="sigmoid", beta=0.1, debug=False,
    )  # fmt: skip
    c = config.base("pipeline")
    config.begin_with(c, __file__, arg.model)
    config.records(c, arg.data, task="prefer")
    c.objective = registry.spec("objectives", arg.objective, beta=arg.beta)
    if arg.objective == "dpo":
        c.objective.form = arg.form
        c.objective.length = "mean" if arg.form == "ipo" else "sum"
    if arg.data:
        c.data.source.labels = arg.objective == "kto"
    c.adapter = registry.spec("adapters", arg.adapter)
    c.optimizer.update(
        name="adamw", learning_rate=1e-4 if arg.adapter == "lora" else 5e-6, b2=0.99
    )
    c.optimizer.weight_decay = 0.0
    c.schedule.update(name="linear", warmup=0.1, final=0.0)
    c.train.update(epochs=1.0, batch_size=8, seq_len=1024, log_every=10)
    c.train.update(validate_every=50, checkpoint_every=100)
    c.evaluate.update(tasks=(), objective=True)
    c.generate.update(chat=config.chats(arg.data), temperature=0.0)
    c.generate.prompts = config.QUESTION if not arg.data else ("Who are you?",)
    if arg.debug:
        c = config.debug(c)
        c.data.source.max_documents = 0 if arg.data else 60
        if not arg.data:
            c.data.stage.functions.longest = 200
        c.train.update(seq_len=512)
    return c
