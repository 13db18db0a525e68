"""Instruction tuning: a model learns to answer, from conversations.

    python -m llm.main --config=configs/sft.py:model=runs/quickstart --workdir=runs/sft

`model` is what to begin with: a run directory, a Hugging Face folder, a GGUF file, or
the name of a size (`model=quickstart`, the default), which begins with random weights.
`data=PATH` is a JSON or JSON-lines file of your own, or a folder of them, in one of
these forms (`llm/data/record_forms.py`):

    {"messages": [{"role": ..., "content": ...}, ...], "tools": [...]}       OpenAI
    {"conversations": [{"from": "human", "value": ...}, ...]}                ShareGPT
    {"instruction": ..., "input": ..., "output": ..., "history": [...]}      Alpaca
    {"instruction": ..., "context": ..., "response": ...}                    Dolly
    {"question" | "query" | "problem" | "prompt": ..., "answer" | "response": ...}
    {"prompt": ..., "completion": ...}

Tools, thoughts and message weights go to the chat template (`docs/chat_templates.md`);
what cannot be read is dropped, counted and named. Without `data`, the functions of the
standard library of this Python: asked for one by its signature and docstring, the
assistant writes it. `adapter=lora` trains low-rank updates only. `--config.preview=8`
prints what would be learned, and stops:

    python -m llm.main --config=configs/sft.py --workdir=runs/preview --config.preview=8

Afterwards, `configs/generate.py` with `--config.generate.chat=True` asks the model.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(
        arg, model="quickstart", data="", adapter="full", debug=False
    )
    c = config.base("pipeline")
    config.begin_with(c, __file__, arg.model)
    config.records(c, arg.data, task="write")
    c.objective = registry.spec("objectives", "sft")
    c.adapter = registry.spec("adapters", arg.adapter)
    lora = arg.adapter == "lora"
    c.optimizer.update(
        name="adamw", learning_rate=2e-4 if lora else 5e-5, weight_decay=0.0, b2=0.99
    )
    if not c.init_from:
        c.optimizer.learning_rate = 1e-3
    c.schedule.update(name="linear", warmup=0.05, final=0.0)
    c.train.update(epochs=2.0, batch_size=8, seq_len=512, log_every=10)
    c.train.update(validate_every=100, checkpoint_every=100)
    c.evaluate.update(tasks=(), objective=True, before=bool(c.init_from))
    c.generate.update(chat=config.chats(arg.data), temperature=0.0)
    c.generate.prompts = config.QUESTION if not arg.data else ("Who are you?",)
    if arg.debug:
        c = config.debug(c)
        c.data.source.max_documents = 0 if arg.data else 60
        c.train.update(seq_len=256)
    return c
