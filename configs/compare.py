"""Two models beside each other, from what they were evaluated on.

    python -m llm.main --config=configs/compare.py --workdir=runs/compare \\
        --config.compare.runs="('runs/gsm8k', 'runs/gsm8k')"

`compare.runs` are the workdirs of two evaluations (`configs/evaluate.py`,
`configs/benchmarks.py`) of the same tasks. Writes compare.json and compare.html: of
each figure both values, the difference with its paired interval, and items in which
one model does better, side by side. The command compares a run with itself, and finds
no difference. Seconds.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base("compare")
    return config.debug(c) if arg.debug else c
