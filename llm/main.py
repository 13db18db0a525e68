"""Flags to config to workload, and nothing else.

    python -m llm.main --config=configs/quickstart.py --workdir=runs/quickstart
    python -m llm.main --config=configs/1b.py:debug --workdir=runs/debug \\
        --config.optimizer.learning_rate=0.01

An installed package has the configs and the command `llm --config=1b.py --workdir=DIR`.
A file of the current directory comes before a shipped config of its name. --plugins=DIR
adds plug-ins of your own (docs/extending.md).

The config names the workload (`llm/workloads/<name>.py`), which does the work and can
be imported, tested and used from a notebook. Exit codes: 0 done; 2 bad config or input
(one line says what we got, what we wanted and what to do); 75 preempted and saved, run
the same command again to resume; 76 a step that hung or another process that was lost,
likewise; 130 interrupted and saved.
"""

import signal
import sys
import traceback

from absl import app, logging

from llm import cli, config, distributed, process, registry
from llm.errors import InputError, Stopped, report_input_error


def main(argv: list[str]) -> None:
    """Runs the workload that the config names on the working directory."""
    logging.set_verbosity(logging.FATAL)  # orbax tells much, and what it raises, twice
    signal.signal(signal.SIGTERM, _stop)
    try:
        c, workdir = cli.from_flags(argv)
        distributed.join(c.workload)
        config.check(c)
        registry.build("workloads", c.workload)(c, workdir)
    except InputError as error:
        code = report_input_error(error)
        if distributed.several():
            distributed.leave(code)
        sys.exit(code)
    except KeyboardInterrupt:
        raise Stopped("interrupted; run the same command again to go on", 130) from None
    except Exception as error:
        if not distributed.several():
            raise
        traceback.print_exc()
        if not distributed.lost(error):
            distributed.leave(1)
        said = "another process was lost; run the same command again to resume"
        print(f"llm: {said}", file=sys.stderr)
        distributed.leave(76)


def _stop(number, frame):
    """SIGTERM where nothing is to be saved; training has its own answer to it."""
    raise Stopped("asked to stop; run the same command again to go on", 75)


def run() -> None:
    """The command `llm`, and `python -m llm.main`."""
    process.prepare()
    process.print_any_text()
    try:
        app.run(main, flags_parser=cli.parse)
    except Stopped as stopped:
        process.leave(stopped.code)


if __name__ == "__main__":
    run()
