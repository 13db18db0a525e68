"""Makes a smaller model: fewer bits a weight, or fewer weights.

    python -m llm.main --config=configs/compress.py:model=runs/quickstart \
        --workdir=runs/quickstart_int8
    python -m llm.main --config=configs/compress.py:model=runs/quickstart,method=int4 \
        --workdir=runs/quickstart_int4

`model` is a run directory, a Hugging Face folder or a GGUF file; `method` is a file of
llm/compress/: int8, int4, prune_magnitude or prune_nm, whose knobs are fields, such as
`--config.compress.method.share=0.3`. The result is a run directory to generate with,
evaluate and serve; compress.json holds size, tokens/s and perplexity, before and after,
on `--config.compress.text=PATH` (without it, on the source of these workloads). int4
loses less with a text like those that the model will read, other than the measured one:
`--config.compress.calibration=PATH`.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, model="", method="int8", debug=False)
    c = config.base("compress")
    c.compress.model_dir = arg.model
    c.compress.method = registry.spec("compress", arg.method)
    return config.debug(c) if arg.debug else c
