#!/usr/bin/env python3
"""A gcloud of TPU VMs in a folder: it records calls, and fails as it is told.

FAKE names the folder. plan.json says what the next calls of a kind meet, in order:
`create` stockout | quota, `ssh` and `scp` an exit code, `state` a state that the VM is
found in ('' leaves it as it is), `wrong` why none is said, `exits` what runs end with.
A worker is a folder, its home, where commands really run; only what would install
packages is left out.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

FOLDER = pathlib.Path(os.environ["FAKE"])
WORKERS = 2
ERRORS = {
    "stockout": 'ERROR: There is no more capacity in the zone "us-west4-a"',
    "quota": "ERROR: RESOURCE_EXHAUSTED: Quota limit 'TPUV5sPodPerProject' exceeded",
}
# In place of the environment: a python that ends as the plan says.
VENV = """
find_python() { :; }
make_venv() { mkdir -p .venv/bin; printf '%s\\n' '#!/bin/bash' "echo ran \\$*" \
'echo "$*" >>"$FAKE/commands"' 'exec python3 "$FAKE/ends.py"' >.venv/bin/python
chmod +x .venv/bin/python; }
"""


def read(name, default):
    path = FOLDER / name
    return json.loads(path.read_text()) if path.exists() else default


def write(name, value):
    (FOLDER / name).write_text(json.dumps(value))


def planned(kind):
    """What the plan has next for a kind of call; '' where it has nothing more."""
    plan = read("plan.json", {})
    found = plan.get(kind, [])
    value = found.pop(0) if found else ""
    write("plan.json", plan)
    return value


def homes():
    return sorted((FOLDER / "workers").glob("*"))


def take_away():
    """The VM is gone, with all that ran on it."""
    for home in homes():
        pid = home / "llm-run/run.pid"
        if pid.exists():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(pid.read_text()), signal.SIGKILL)
    shutil.rmtree(FOLDER / "workers", ignore_errors=True)


def option(words, name):
    return next((w.split("=", 1)[1] for w in words if w.startswith(f"--{name}=")), None)


def main(words):
    with (FOLDER / "calls").open("a") as file:
        print(json.dumps(words), file=file)
    kind, verb = words[2:4]
    if verb == "create":
        wrong = planned("create")
        if wrong:
            sys.exit(ERRORS[wrong])
        for number in range(WORKERS):
            (FOLDER / f"workers/{number}").mkdir(parents=True)
        write("state.json", "CREATING")
    elif verb == "describe":
        wrong = planned("wrong")
        if wrong:
            sys.exit(f"ERROR: {wrong}")
        state = read("state.json", None)
        if kind == "queued-resources":
            if state is None:
                sys.exit("ERROR: NOT_FOUND")
            return print("ACTIVE")
        found = planned("state")
        if found:
            state = found
            write("state.json", state)
            take_away()
        if state is None:
            sys.exit("ERROR: NOT_FOUND")
        if "networkEndpoints" in words[-1]:
            return print(WORKERS)
        print(state)
        if state == "CREATING":
            write("state.json", "READY")
    elif verb == "delete":
        take_away()
        write("state.json", None)
    elif verb == "list":
        print("one\tv5litepod-8\tREADY\ntwo\tv4-8\tPREEMPTED\nthree\tv3-32\tREADY")
    elif verb == "ssh":
        code = planned("ssh")
        if code:
            sys.exit(code)
        command = option(words, "command").replace(". launch/venv.sh", VENV)
        for home in homes():
            subprocess.run(
                ["bash", "-c", command], cwd=home, check=True,
                env=dict(os.environ, HOME=str(home)),
            )  # fmt: skip
    elif verb == "scp":
        code = planned("scp")
        if code:
            sys.exit(code)
        source, target = words[4:6]
        if ":" in target:
            for home in homes():
                shutil.copy(source, home / target.split(":")[1])
        else:
            home = FOLDER / "workers" / option(words, "worker")
            shutil.copy(home / source.split(":")[1], target)


if __name__ == "__main__":
    main(sys.argv[1:])
