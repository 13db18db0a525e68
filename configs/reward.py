"""A reward model: a number for an answer, from what people prefer (Bradley-Terry).

    python -m llm.main --config=configs/reward.py:model=runs/sft --workdir=runs/reward

`model` is as in `configs/sft.py`, and `data=PATH` as in `configs/dpo.py`; without it,
the body that belongs to a signature of the standard library is preferred to that of
another function. `adapter=lora` trains low-rank updates and the vector that rewards are
made with. `centre=0.01` keeps rewards near 0. Afterwards evaluate.json says of the
pairs that were held out how often the preferred answer has the higher reward, with its
interval, and how far sigmoid(margin) is from that (`calibration_error`).
`llm/inference/reward_scores.py` asks the model about answers.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(
        arg, model="quickstart", data="", adapter="full", centre=0.0, debug=False
    )
    c = config.base("pipeline")
    config.begin_with(c, __file__, arg.model)
    config.records(c, arg.data, task="prefer")
    c.objective = registry.spec("objectives", "reward", centre=arg.centre)
    c.adapter = registry.spec("adapters", arg.adapter)
    lora = arg.adapter == "lora"
    if lora:
        c.adapter.full = "reward/.*"
    c.optimizer.update(
        name="adamw", learning_rate=1e-4 if lora else 1e-5, weight_decay=0.0, b2=0.99
    )
    c.schedule.update(name="linear", warmup=0.1, final=0.0)
    c.train.update(epochs=1.0, batch_size=8, seq_len=1024, log_every=10)
    c.train.update(validate_every=50, checkpoint_every=100)
    c.evaluate.update(tasks=("preferences",), objective=True)
    c.generate.prompts = ()
    if arg.debug:
        c = config.debug(c)
        c.data.source.max_documents = 0 if arg.data else 60
        if not arg.data:
            c.data.stage.functions.longest = 200
        c.train.update(seq_len=512)
    return c
