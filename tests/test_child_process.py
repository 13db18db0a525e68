"""Children that hang, take all memory, die, flood or write nonsense, each in its limit.

That they end with their parent is in `outside/test_child_processes.py`.
"""

import os
import pathlib
import signal
import socket
import sys
import threading
import time

import pytest

from llm.child_process import Child, Limits, Outcome

SCRIPT = pathlib.Path(__file__).with_name("limited_child.py")
MEMORY = 2**30
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def child():
    with Child(SCRIPT, Limits(seconds=20, memory_bytes=MEMORY)) as one:
        yield one


@pytest.fixture
def limited():
    """Makes children that are closed at the end."""
    made = []

    def make(**limits):
        made.append(Child(SCRIPT, Limits(**{"seconds": 20, **limits})))
        return made[-1]

    yield make
    for one in made:
        one.close()


def assert_answers(child):
    verdict = child.ask(do="echo", value="again")
    assert (verdict.outcome, verdict.value) == (Outcome.ANSWERED, ["again", 0])


def alive(number):
    try:
        state = pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return False
    return state.split()[0] != "Z"


def ends(number, seconds=5):
    until = time.monotonic() + seconds
    while alive(number) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(number)


@pytest.mark.parametrize(
    "value",
    [None, 0.5, {"a": [1, "é\n\ud800"]}, "x" * 3_000_000],
    ids=lambda v: str(v)[:9],
)
def test_arguments_and_answers_are_json(child, value):
    verdict = child.ask(do="echo", value=value)
    assert verdict.outcome is Outcome.ANSWERED and verdict.value == [value, 0]
    assert verdict.unenforced == () and verdict.exit_code is None


def test_bytes_go_as_they_are(child):
    """More than a pipe holds, with line ends and any bytes."""
    data = bytes(range(256)) * 20_000
    assert child.ask(do="echo", value=1, data=data).value == [1, len(data)]
    assert child.ask(do="echo", data=b"").value == [None, 0]


def test_one_process_answers_all(child):
    child.ask(do="echo")
    pid = child.pid
    for _ in range(3):
        assert_answers(child)
    assert child.pid == pid


@pytest.mark.parametrize("do", ["sleep", "call_into_c", "spin"])
def test_hangs(limited, do):
    child = limited(seconds=0.5)
    verdict = child.ask(do=do)
    assert verdict.outcome is Outcome.TIMED_OUT and verdict.exit_code is None
    assert_answers(child)


@pytest.mark.parametrize("do", ["call_into_c", "spin"])
def test_takes_time_of_the_processor(limited, do):
    child = limited(cpu_seconds=0.3)
    assert child.ask(do=do).outcome is Outcome.TIMED_OUT
    assert_answers(child)


def test_waiting_takes_no_time_of_the_processor(limited):
    child = limited(cpu_seconds=0.3, seconds=1.0)
    started = time.monotonic()
    assert child.ask(do="sleep").outcome is Outcome.TIMED_OUT
    assert time.monotonic() - started > 0.9


def test_takes_memory(child):
    assert child.ask(do="eat", size=1000).value == 1000
    assert child.ask(do="eat", size=2 * MEMORY).outcome is Outcome.OUT_OF_MEMORY
    assert_answers(child)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [({"do": "leave", "code": 3}, 3), ({"do": "leave", "code": 0}, 0),
     ({"do": "crash"}, -signal.SIGSEGV)],
)  # fmt: skip
def test_dies(child, arguments, code):
    verdict = child.ask(**arguments)
    assert (verdict.outcome, verdict.exit_code) == (Outcome.DIED, code)
    assert_answers(child)


@pytest.mark.parametrize(("do", "message"), [("fail", "KeyError"), ("no_json", "set")])
def test_raises(child, do, message):
    verdict = child.ask(do=do)
    assert (verdict.outcome, verdict.exit_code) == (Outcome.DIED, 1)
    assert message in verdict.message
    assert_answers(child)


@linux
def test_killed_between_two_requests(child):
    child.ask(do="echo")
    pid = child.pid
    os.kill(pid, signal.SIGKILL)
    assert ends(pid)
    assert_answers(child)
    assert child.pid != pid


def test_what_it_prints_is_no_reply(child):
    assert child.ask(do="prints").value == "done"
    assert_answers(child)


def test_floods(limited):
    child = limited(reply_bytes=1_000_000)
    verdict = child.ask(do="flood")
    assert verdict.outcome is Outcome.BAD_REPLY and "1,000,000" in verdict.message
    assert_answers(child)


@linux
@pytest.mark.parametrize(
    "content",
    ["garbage\n", "\0\n", "[]\n", "{}\n", "1\n", '[7, "value", 1]\n', '[1, "x", 1]\n',
     "[" * 100_000 + "\n", '{"a": 1, "b": 2, "c": 3}\n', '[1, "value", 1]\n[2]\n'],
    ids=lambda content: content[:12].strip(),
)  # fmt: skip
def test_writes_garbage(limited, content):
    child = limited()
    verdict = child.ask(do="garbage", content=content)
    assert verdict.outcome is Outcome.BAD_REPLY and verdict.message
    assert_answers(child)


@linux
def test_no_reply_is_taken_for_that_of_a_later_request(limited):
    child = limited()
    assert child.ask(do="more_than_a_reply").value in (None, "forged")
    assert_answers(child)


@linux
def test_closes_its_pipe_and_lives(limited):
    child = limited()
    assert child.ask(do="closes").outcome is Outcome.DIED
    assert_answers(child)


@pytest.mark.parametrize(
    ("script", "message"),
    [(None, "No such file"), ("import no_such_module", "no_such_module"),
     ("answer = 1 +", "SyntaxError"), ("x = 1", "answer"),
     ("import sys; sys.exit(4)", "4"), ("import os; os.abort()", "-6")],
)  # fmt: skip
def test_does_not_start(tmp_path, script, message):
    if script:
        (tmp_path / "child.py").write_text(script)
    with Child(tmp_path / "child.py") as child:
        for _ in range(2):
            verdict = child.ask()
            assert verdict.outcome is Outcome.NOT_STARTED
            assert message in verdict.message


def test_hangs_at_its_start(tmp_path):
    (tmp_path / "child.py").write_text("import time; time.sleep(60)")
    with Child(tmp_path / "child.py", Limits(start_seconds=0.5)) as child:
        verdict = child.ask()
    assert verdict.outcome is Outcome.NOT_STARTED and verdict.message == "timed out"


def test_files_are_limited_and_their_folder_goes(limited):
    child = limited(file_bytes=1000, temporary_folder=True)
    folder, files = child.ask(do="folder").value
    assert files == [] and pathlib.Path(folder).is_dir()
    assert child.ask(do="write", size=1000).value == 1000
    verdict = child.ask(do="write", size=100_000)
    assert verdict.outcome is Outcome.DIED and "File too large" in verdict.message
    assert not pathlib.Path(folder).exists()
    another, files = child.ask(do="folder").value
    assert files == [] and another != folder
    child.close()
    assert not pathlib.Path(another).exists()


def test_its_environment(limited, monkeypatch):
    monkeypatch.setenv("SECRET", "abc")
    assert limited().ask(do="variables").value["SECRET"] == "abc"
    found = limited(environment={"A": "b"}).ask(do="variables").value
    assert found["A"] == "b" and "SECRET" not in found


@linux
def test_what_it_starts_has_no_pipe_of_it(child):
    """Standard input, output and errors, and the folder that is listed."""
    assert child.ask(do="inherited").value == 4


@linux
def test_what_it_started_ends_with_it(limited):
    child = limited()
    other = child.ask(do="start_another").value
    assert alive(other)
    child.close()
    assert ends(other)


def test_network(limited):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert limited().ask(do="connect", port=port).value == "connected"
        verdict = limited(network=False).ask(do="connect", port=port)
    if verdict.unenforced:
        assert verdict.unenforced == ("network",) and verdict.value == "connected"
    else:
        assert verdict.value == "OSError"  # no such network


@linux
def test_fork_bomb(limited):
    child = limited(processes=5, network=False)
    verdict = child.ask(do="bomb")
    assert verdict.outcome is Outcome.ANSWERED
    if "processes" not in verdict.unenforced:
        assert verdict.value == 5
    child.close()


def test_a_fork_has_a_child_of_its_own(child):
    assert_answers(child)
    pid = child.pid
    fork, own = os.fork(), False
    if not fork:
        try:
            verdict = child.ask(do="echo", value="fork")
            own = child.pid != pid and verdict.value == ["fork", 0]
            child.close()
        finally:
            os._exit(0 if own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0
    assert_answers(child)
    assert child.pid == pid


def test_threads_ask_one_after_the_other(child):
    found = {}

    def ask(number):
        found[number] = child.ask(do="echo", value=number).value

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [n, 0] for n in range(8)}


def test_a_request_that_is_interrupted_or_no_json_leaves_nothing(child):
    """A signal may come while half of a request is written, or none of its reply."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    assert_answers(child)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            child.ask(do="sleep")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert_answers(child)
    pid = child.pid
    with pytest.raises(TypeError, match="set"):
        child.ask(do="echo", value={1})
    assert_answers(child)
    assert child.pid == pid


@linux
def test_no_file_stays_open(limited):
    child = limited()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        child.ask(do="leave", code=1)
    child.close()
    assert len(os.listdir("/proc/self/fd")) == before
