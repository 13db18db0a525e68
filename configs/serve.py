"""Serves a model: OpenAI's API, and a web page at /.

    python -m llm.main --config=configs/serve.py --workdir=runs/serve \\
        --config.serve.model_dir=runs/quickstart

Needs the extra `serve`. Prints `llm: quickstart at http://127.0.0.1:8000` when all is
compiled. `serve.model_dir` may also be a Hugging Face folder or a GGUF file (extra
`hf`). Ctrl-C or SIGTERM answers what was asked and ends, with exit code 0; a second one
ends at once. In the workdir: requests.jsonl, a line of figures an answer, and, with
`serve.feedback=True`, preferences.jsonl and ratings.jsonl.

    --config.serve.host=0.0.0.0 --config.serve.api_keys_file=keys.txt
    --config.serve.guard="(('words','redact'),)" --config.serve.check.words.path=FILE

The first serves other machines, with keys, one a line; the second takes the words of a
file out of prompts and answers.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base("serve")
    c.serve.model_dir = "runs/quickstart"
    return config.debug(c) if arg.debug else c
