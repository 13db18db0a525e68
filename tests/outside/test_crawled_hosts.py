"""What hosts do to a crawler: they ask for patience, lead in circles, send bombs."""

import datetime
import email.utils
import gzip
import http.server
import json
import pathlib
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("scrapy")
pytest.importorskip("warcio")

from llm.corpus import crawl_worker

ROOT = pathlib.Path(__file__).parent.parent.parent


def response(value):
    from scrapy.http import Response

    return Response("http://a.org/", headers={"Retry-After": value} if value else {})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("", 0), ("12", 12), (" 7 ", 7), ("0", 0), ("-5", 0), ("soon", 0), ("1.5", 0),
     ("²", 0), ("9" * 400, 999_999_999_999), ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
     ("Wed, 99 Foo", 0)],
)  # fmt: skip
def test_retry_after(value, seconds):
    assert crawl_worker.retry_after(response(value.encode("utf-8"))) == seconds


def test_retry_after_as_a_date():
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    for form in (email.utils.format_datetime(then, usegmt=True), f"{then:%c} -0000"):
        assert 28 < crawl_worker.retry_after(response(form)) <= 30


@pytest.fixture
def serve():
    """serve(answer) -> (URL, [(time, path)]); answer(path, count) -> (status, headers,
    body), where count says how often the path was asked for before."""
    servers = []

    def begin(answer):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                count = sum(path == self.path for _, path in asked)
                asked.append((time.monotonic(), self.path))
                status, headers, body = answer(self.path, count)
                self.send_response(status)
                kind = "text/plain" if self.path == "/robots.txt" else "text/html"
                for name, value in {"Content-Type": kind, **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/", asked

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def links(*paths):
    return b"<html><p>Words.</p>" + b"".join(
        b'<a href="%s">x</a>' % path.encode() for path in paths
    )


def command(tmp_path, url, **more):
    fields = {"start": f"('{url}',)", "contact": "https://example.org/", "delay": "0.0",
              "private_hosts": "('127.0.0.1',)", "seconds": "5.0", **more}  # fmt: skip
    flags = [f"--config.crawl.{name}={value}" for name, value in fields.items()]
    return [sys.executable, "-m", "llm.main", "--config=configs/crawl.py",
            f"--workdir={tmp_path}", *flags]  # fmt: skip


def crawl(tmp_path, url, **more):
    done = subprocess.run(
        command(tmp_path, url, **more), capture_output=True, text=True, cwd=ROOT
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("dated", [False, True])
def test_a_host_that_asks_for_time_gets_it(tmp_path, serve, status, dated):
    """Neither the page nor any other of that host is asked for meanwhile."""
    seconds = 1

    def answer(path, count):
        if path == "/b" and not count:
            # A date has whole seconds, so that it may be up to one less.
            then = datetime.datetime.now(datetime.UTC)
            then += datetime.timedelta(seconds=seconds + 1)
            value = email.utils.format_datetime(then, usegmt=True)
            return status, {"Retry-After": value if dated else str(seconds)}, b""
        body = {"/": links("/a", "/b", "/c", "/d"), "/robots.txt": b""}
        return 200, {}, body.get(path, links())

    url, asked = serve(answer)
    done = crawl(tmp_path, url)
    assert done.returncode == 0, done.stderr
    assert f"127.0.0.1 asks to wait {seconds}" in done.stderr or dated
    told = next(at for at, path in asked if path == "/b")
    after = [at - told for at, path in asked if at > told]
    assert min(after) >= seconds - 0.05, asked
    assert [path for _, path in asked].count("/b") == 2
    assert json.loads((tmp_path / "crawl.json").read_text())["pages"]["127.0.0.1"] == 5


def test_one_that_asks_for_too_long_is_left_and_that_is_said(tmp_path, serve):
    def answer(path, count):
        if path == "/b":
            return 429, {"Retry-After": "86400"}, b""
        body = {"/": links("/b", "/c", "/d"), "/robots.txt": b""}
        return 200, {}, body.get(path, links())

    url, asked = serve(answer)
    done = crawl(tmp_path, url)
    assert done.returncode == 0, done.stderr
    assert "it asks to wait 86400 s, and 300 s are waited at the most" in done.stderr
    assert [path for _, path in asked][-1] == "/b"
    assert "failed, asks to wait over 300 s: 1" in done.stdout
    assert not [
        line
        for line in (tmp_path / "pages/fetched.jsonl").open()
        if '/b",' in line.partition('"links"')[0]
    ]  # another run asks again


@pytest.mark.parametrize("loop", ["self", "two", "ever"])
def test_redirects_without_an_end_are_counted(tmp_path, serve, loop):
    def answer(path, count):
        number = int(path[2:]) if path[2:].isdigit() else -1
        to = {"self": number, "two": 1 - number, "ever": number + 1}[loop]
        if number >= 0:
            return 302, {"Location": f"/r{to}"}, b""
        return 200, {}, {"/": links("/r0"), "/robots.txt": b""}.get(path, links())

    url, asked = serve(answer)
    done = crawl(tmp_path, url)
    assert done.returncode == 0, done.stderr
    assert "failed, redirects without an end: 1" in done.stdout, done.stdout
    assert len(asked) < 12


def test_circles_bombs_and_large_pages_are_counted(tmp_path, serve):
    def answer(path, count):
        if path.startswith("/circle"):
            return (
                302,
                {"Location": "/circle2" if path == "/circle" else "/circle"},
                b"",
            )
        if path == "/bomb":
            return 200, {"Content-Encoding": "gzip"}, gzip.compress(b"0" * 2**25)
        if path == "/large":
            return 200, {}, b"<p>" + b"x" * 2**21
        body = {"/": links("/circle", "/bomb", "/large"), "/robots.txt": b""}
        return 200, {}, body.get(path, links())

    url, _ = serve(answer)
    done = crawl(tmp_path, url, max_page_bytes=2**20)
    assert done.returncode == 0, done.stderr
    for reason in ("redirects without an end", "unpacks to more than max_page_bytes",
                   "larger than max_page_bytes"):  # fmt: skip
        assert f"failed, {reason}: 1" in done.stdout, done.stdout + done.stderr
    failed = json.loads((tmp_path / "crawl.json").read_text())["failed"]
    assert sum(failed.values()) == 3


@pytest.fixture
def crawling(tmp_path, serve):
    """(process of a crawl of 200 pages, its URL, what it asked for by now)."""

    def answer(path, count):
        body = {"/": links(*(f"/{n}" for n in range(200))), "/robots.txt": b""}
        return 200, {}, body.get(path, links())

    url, asked = serve(answer)
    first = subprocess.Popen(
        command(tmp_path, url, delay=0.2), cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 30
    while len(asked) < 3:
        assert time.monotonic() < until and first.poll() is None
        time.sleep(0.02)
    yield first, url, asked
    first.kill()
    first.wait()


def test_a_second_crawl_is_refused_in_a_line(tmp_path, crawling):
    first, url, asked = crawling
    second = crawl(tmp_path, url)
    assert second.returncode == 2
    assert "in which another process crawls" in second.stderr.splitlines()[-1]
    before = len(asked)
    time.sleep(0.5)
    assert len(asked) > before and first.poll() is None, "the first goes on"


def test_a_killed_crawl_leaves_nobody(crawling):
    first, _, asked = crawling
    first.kill()
    first.wait()
    time.sleep(0.2)
    before = len(asked)
    time.sleep(0.7)
    assert len(asked) == before
