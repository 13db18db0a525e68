"""Notices of a metadata server, against one on this machine."""

import contextlib
import http.server
import queue
import threading

import pytest

from llm.training.preemption import Notices


@contextlib.contextmanager
def server(answers):
    """The address of a metadata server whose answers can be changed."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            said = answers.get(self.path)
            wanted = self.headers.get("Metadata-Flavor") == "Google"
            self.send_response(200 if said is not None and wanted else 404)
            self.end_headers()
            self.wfile.write((said or "").encode())

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_address[1]}"
        finally:
            made.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "answers, said",
    [
        ({"/maintenance-event": "NONE", "/preempted": "FALSE"}, ""),
        ({"/maintenance-event": "MIGRATE_ON_HOST_MAINTENANCE"}, ""),
        ({}, ""),
        ({"/maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE\n"},
         "maintenance-event: TERMINATE_ON_HOST_MAINTENANCE"),
        ({"/maintenance-event": "NONE", "/preempted": "TRUE"}, "preempted: TRUE"),
    ],
)  # fmt: skip
def test_what_is_a_notice(answers, said):
    with server(answers) as url:
        assert Notices(url, print).look() == said


def test_it_is_told_once_when_it_comes():
    answers, told = {"/maintenance-event": "NONE"}, queue.Queue()
    with server(answers) as url, Notices(url, told.put, every=0.02):
        with pytest.raises(queue.Empty):
            told.get(timeout=0.2)
        answers["/preempted"] = "TRUE"
        assert told.get(timeout=5) == "preempted: TRUE"
        with pytest.raises(queue.Empty):
            told.get(timeout=0.2)


def test_no_server_is_no_notice():
    with server({}) as url:
        pass
    notices = Notices(url, print, every=0.01)
    with pytest.raises(OSError, match="refused"):
        notices.look()
    with notices:
        notices._thread.join(timeout=5)
        assert not notices._thread.is_alive()
    with Notices("", print) as nobody:
        assert not nobody._thread.is_alive()
