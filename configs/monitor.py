"""Has the traffic of a server changed? Compares two windows of its request log.

    python -m llm.main --config=configs/monitor.py --workdir=runs/monitor \\
        --config.monitor.log=requests.jsonl --config.monitor.hours=24

The last 24 hours of the log are compared with what came before or, with
`monitor.reference=FILE`, with another log: lengths, log-probabilities, tokens that are
bytes, latency, how answers ended, languages. Lines are those of
`llm/serve/request_record.py`. Writes monitor.json and monitor.html; the exit code is 0,
or 3 where something drifted, so that a timer can call for help. Seconds.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base("monitor")
    return config.debug(c) if arg.debug else c
