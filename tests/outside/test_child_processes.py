"""Child processes end with their parent, whatever ends it and whatever they do."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from llm import child_process

ROOT = pathlib.Path(__file__).parent.parent.parent
# The parents: each prints the number of its child, then waits to be ended.
PLAIN = """
import sys, time
from llm import child_process
print(child_process.start(sys.argv[1]).pid, flush=True)
time.sleep(60)
"""
THREAD = """
import sys, threading, time
from llm import child_process
made = []
thread = threading.Thread(target=lambda: made.append(child_process.start(sys.argv[1])))
thread.start()
thread.join()
print(made[0].pid, flush=True)
time.sleep(60)
"""
EXTRACTION = """
import sys, threading, time
from llm.corpus import extract
def hang():
    with extract.pages("resiliparse", 600) as page:
        page(b"<p>a</p>")
        started.set()
        page(b"<div>" * 300_000)
started = threading.Event()
threading.Thread(target=hang, daemon=True).start()
started.wait()
children = open("/proc/self/task/%d/children" % threading.get_native_id()).read()
import glob
for path in glob.glob("/proc/self/task/*/children"):
    children += " " + open(path).read()
print(children.split()[0], flush=True)
time.sleep(60)
"""
TEMPLATE = """
import time
from llm.tokenizers import template_process
template_process.rendered("a", [], reply=False, tokens={}, marks=("<", ">"))
print(template_process._child.pid, flush=True)
time.sleep(60)
"""
LIMITED = """
import sys, time
from llm.child_process import Child
child = Child(sys.argv[1])
print(child.ask(do="start_another").value, flush=True)
time.sleep(60)
"""
# What a child does: it sleeps, or is in a call into C that holds Python's lock.
SLEEPS = "import time\ntime.sleep(60)\n"
SPINS = "import re\nre.match('(a|a)*b', 'a' * 60)\n"
NEVER_READS = "import os, signal\nos.read(os.pipe()[0], 1)\n"


def alive(number):
    try:
        state = pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return False
    return state.split()[0] != "Z"


def started(code, *args):
    """A parent, and the number of its child."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    # A shell lets what it starts in the background ignore Ctrl-C.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = heard + code
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, env=env
    )
    return parent, int(parent.stdout.readline())


def ends(number, seconds=5):
    until = time.monotonic() + seconds
    while alive(number) and time.monotonic() < until:
        time.sleep(0.02)
    gone = not alive(number)
    if not gone:
        os.kill(number, signal.SIGKILL)
    return gone


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
class TestEnds:
    """Each of the ways in which a parent ends, and of what a child does then."""

    @pytest.mark.parametrize("does", [SLEEPS, SPINS, NEVER_READS])
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_with_its_parent(self, tmp_path, does, how):
        (tmp_path / "child.py").write_text(does)
        parent, child = started(PLAIN, tmp_path / "child.py")
        assert alive(child)
        time.sleep(0.2)
        parent.send_signal(how)
        parent.wait()
        parent.stdout.close()
        assert ends(child)

    def test_a_parent_that_is_killed_at_once(self, tmp_path):
        """Before the child has begun to read its script."""
        (tmp_path / "child.py").write_text(SLEEPS)
        parent, child = started(PLAIN, tmp_path / "child.py")
        parent.kill()
        parent.wait()
        parent.stdout.close()
        assert ends(child)

    def test_it_outlives_the_thread_that_started_it(self, tmp_path):
        (tmp_path / "child.py").write_text(SLEEPS)
        parent, child = started(THREAD, tmp_path / "child.py")
        time.sleep(0.5)
        assert alive(child)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        assert ends(child)

    @pytest.mark.parametrize("code", [EXTRACTION, TEMPLATE])
    def test_those_for_pages_and_templates(self, code):
        pytest.importorskip("resiliparse")
        parent, child = started(code)
        assert alive(child)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        assert ends(child)

    def test_what_a_limited_child_started(self):
        parent, other = started(LIMITED, ROOT / "tests" / "limited_child.py")
        assert alive(other)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        assert ends(other)


def test_a_child_has_its_arguments_and_ends_as_it_likes(tmp_path):
    (tmp_path / "child.py").write_text("import sys\nprint(sys.argv[1:])\nsys.exit(3)\n")
    process = child_process.start(
        tmp_path / "child.py", "a", "b c", stdout=subprocess.PIPE, text=True
    )
    assert process.communicate()[0] == "['a', 'b c']\n" and process.returncode == 3


def test_no_file_stays_open(tmp_path):
    (tmp_path / "child.py").write_text("")
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc") else 0
    for _ in range(5):
        child_process.start(tmp_path / "child.py").wait()
    after = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc") else 0
    assert after <= before
