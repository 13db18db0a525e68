"""Imports a model of others into a run directory, or exports a run directory.

To Hugging Face's form (config.json, model.safetensors, tokenizer.json), and back:

    python -m llm.main --config=configs/convert.py:source=runs/quickstart,to=hf \\
        --workdir=runs/quickstart_hf
    python -m llm.main --config=configs/convert.py:source=runs/quickstart_hf \\
        --workdir=runs/imported

To a file for llama.cpp, and back:

    python -m llm.main \\
        --config=configs/convert.py:source=runs/quickstart,to=gguf,dtype=q8_0 \\
        --workdir=runs/quickstart_gguf
    python -m llm.main \\
        --config=configs/convert.py:source=runs/quickstart_gguf/model.gguf \\
        --workdir=runs/imported_gguf

The low-rank updates of a run of `adapter=lora` to PEFT's form, and such an adapter into
the model that it was made for:

    python -m llm.main --config=configs/convert.py:source=runs/lora,to=peft \\
        --workdir=runs/lora_peft
    python -m llm.main \\
        --config=configs/convert.py:source=runs/lora_peft,base=runs/quickstart \\
        --workdir=runs/adapted

`dtype` is float32, bfloat16 or float16 for hf, and f16, q8_0 or q4_0 for gguf. The
imported run is a `model_dir` for generate, and for evaluate with a corpus to score:
`--config.data.corpus_dir=runs/quickstart` at the import. Needs the extra `hf`. A model
of 135 million parameters takes about a minute of one core.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False, source="", to="", base="", dtype="")
    c = config.base("convert")
    c.convert.update(source=arg.source, to=arg.to, base=arg.base, dtype=arg.dtype)
    # Imported weights are used as precisely as they came.
    c.train.dtype = "float32"
    return config.debug(c) if arg.debug else c
