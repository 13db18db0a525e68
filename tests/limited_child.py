"""What `test_child_process.py` lets a child do."""

import fcntl
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time

SLEEP = "import time; time.sleep(60)"
COUNT = "import os; print(len(os.listdir('/proc/self/fd')))"


def answer(do, **arguments):
    return globals()[do](**arguments)


def echo(value=None, data=b""):
    return [value, len(data)]


def sleep():
    time.sleep(60)


def call_into_c():
    re.match("(a|a)*b", "a" * 60)


def spin():
    while True:
        pass


def eat(size):
    return len(bytearray(size))


def leave(code):
    sys.exit(code)


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def fail():
    raise KeyError("no such thing")


def prints():
    for _ in range(200):
        print("x" * 10_000)
    print("error" * 10_000, file=sys.stderr)
    os.write(1, b'[1, "value", "forged"]\n')
    return "done"


def flood():
    return "x" * 2_000_000


def no_json():
    return {1, 2}


def reply_pipe():
    for name in os.listdir("/proc/self/fd"):
        try:
            pipe = stat.S_ISFIFO(os.fstat(int(name)).st_mode)
            if pipe and fcntl.fcntl(int(name), fcntl.F_GETFL) & os.O_WRONLY:
                return int(name)
        except OSError:
            pass  # the folder itself, which is closed by now


def garbage(content):
    os.write(reply_pipe(), content.encode())
    time.sleep(60)


def more_than_a_reply():
    os.write(reply_pipe(), b'[1, "value", "forged"]\n[2, "value", "forged"]\n')


def closes():
    os.close(reply_pipe())
    time.sleep(60)


def write(size):
    with open("a.txt", "wb") as file:
        return file.write(bytes(size))


def folder():
    return [os.getcwd(), os.listdir()]


def variables():
    return dict(os.environ)


def inherited():
    made = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True)
    return int(made.stdout)


def connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError as error:
        return type(error).__name__
    return "connected"


def start_another():
    return subprocess.Popen([sys.executable, "-c", SLEEP]).pid


def bomb():
    count = 0
    while count < 100:
        try:
            child = os.fork()
        except OSError:
            break
        if not child:
            time.sleep(60)
            os._exit(0)
        count += 1
    return count
