r"""Scores a model on public benchmarks, from files of your own: nothing is downloaded.

    python -m llm.main --config=configs/benchmarks.py:mmlu=benchmarks/mmlu.zip \
        --workdir=runs/mmlu --config.evaluate.model_dir=runs/quickstart
    python -m llm.main --config=configs/benchmarks.py:gsm8k=benchmarks/gsm8k \
        --workdir=runs/gsm8k --config.evaluate.model_dir=runs/quickstart
    python -m llm.main \
        --config=configs/benchmarks.py:crows_pairs=benchmarks/crows_pairs.csv \
        --workdir=runs/crows_pairs --config.evaluate.model_dir=runs/quickstart

`mmlu` is the folder or zip of hendrycks/test (`*_dev.csv`, `*_test.csv`), asked with
`shots` solved questions of the subject; `gsm8k` a folder with train.jsonl and
test.jsonl of openai/grade-school-math, of which the number after `####` must match;
`crows_pairs` the CSV file of nyu-mll/crows-pairs (GitHub repositories). Several at once
are separated by commas. `limit=N` asks N items of each, evenly spread (0 is all),
`chat=True` asks GSM8K by the model's chat template. The model is a run, a Hugging Face
folder or a GGUF file.

Writes evaluate.json, figures with their 95 % intervals, and evaluate_items.jsonl.
SmolLM2-135M-Instruct on two CPU cores: LOG.md. A model of code, such as the
quickstart's, is at chance (25 % of MMLU) and solves nothing.
"""

import pathlib

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(
        arg, mmlu="", gsm8k="", crows_pairs="", shots=0, limit=300, chat=False,
        debug=False,
    )  # fmt: skip
    c = config.base("evaluate")
    c.evaluate.model_dir = "runs/quickstart"
    tasks = c.evaluate.task
    if arg.mmlu:
        tasks.mmlu = registry.spec(
            "evals", "multiple_choice",
            path=f"{arg.mmlu}/**/*_test.csv",
            shots_path=f"{arg.mmlu}/**/*_dev.csv",
            columns="question,A,B,C,D,answer", fields="choices=A+B+C+D",
            preface="The following are multiple choice questions (with answers) about "
            "{_file}.",
            group="_file", shots=arg.shots, limit=arg.limit,
        )  # fmt: skip
    if arg.gsm8k:
        tasks.gsm8k = registry.spec(
            "evals", "generation",
            path=str(pathlib.PurePath(arg.gsm8k) / "test.jsonl"),
            shots_path=str(pathlib.PurePath(arg.gsm8k) / "train.jsonl"),
            prompt="{question}" if arg.chat else "Question: {question}\nAnswer:",
            answer="{answer}" if arg.chat else " {answer}",
            shots=arg.shots or 3, limit=arg.limit, chat=arg.chat,
            stop=r"\n\s*\n|Question:", extract=r"#### *(.+)", max_tokens=256,
        )  # fmt: skip
    if arg.crows_pairs:
        tasks.crows_pairs = registry.spec(
            "evals", "crows_pairs", path=arg.crows_pairs, limit=arg.limit
        )
    names = tuple(n for n in ("mmlu", "gsm8k", "crows_pairs") if arg[n])
    c.evaluate.tasks = names or ("crows_pairs",)  # which says that it wants a path
    return config.debug(c) if arg.debug else c
