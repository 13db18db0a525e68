"""A crawl of a site made here: its rules, its traps, and a kill in the middle."""

import collections
import http.server
import json
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from llm import registry

pytest.importorskip("scrapy")
warcio = pytest.importorskip("warcio")
ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def site():
    """(URL, what was asked of it): pages in three languages, rules and traps."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["User-Agent"]))
            if self.path == "/hung_up":
                self.close_connection = True
                return
            url = f"http://127.0.0.1:{self.server.server_port}"
            own = f"http://localhost:{self.server.server_port}"
            status, kind, more = 200, "text/html; charset=utf-8", ()
            links = {
                "/": "/de /fr /private /calendar/1 /inside /elsewhere /missing "
                "file:///etc/passwd /de#part /hung_up",
                "/de": "/", "/fr": "/en2",
            }  # fmt: skip
            if self.path == "/robots.txt":
                kind = "text/plain"
                body = f"User-agent: *\nDisallow: /private\nSitemap: {url}/map.xml\n"
            elif self.path == "/map.xml":
                kind = "application/xml"
                body = f"<urlset><url><loc>{url}/hidden</loc></url></urlset>"
            elif self.path in ("/inside", "/elsewhere", "/missing"):
                status, body = (404, "no") if self.path == "/missing" else (302, "")
                to = {
                    "/inside": "http://10.0.0.1/",
                    "/elsewhere": own + "/stolen",
                }
                more = [("Location", to[self.path])] if status == 302 else ()
            else:
                found = links.get(self.path, "").split()
                if self.path.startswith("/calendar/"):
                    found = [f"/calendar/{int(self.path[10:]) + 1}"]
                language = self.path[1:3] or "en"
                body = f"<html lang={language}><p>Seite été {self.path}</p>" + "".join(
                    f'<a href="{link}">x</a>' for link in found
                )
            body = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in more:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()


def settings(tmp_path, url, **more):
    (tmp_path / "pages").mkdir(exist_ok=True)
    asked = {
        "start": [url], "hosts": ["127.0.0.1", "10.0.0.1", "localhost"],
        "private_hosts": ["127.0.0.1"], "agent": "llm-lifecycle (+test)", "delay": 0,
        "depth": 4, "pages": 1000, "pages_per_host": 1000, "seconds": 5,
        "max_page_bytes": 10_000, "folder": str(tmp_path / "pages"), **more,
    }  # fmt: skip
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(asked))
    return [sys.executable, "-P", str(ROOT / "llm/corpus/crawl_worker.py"), str(path)]


def test_rules_and_traps(tmp_path, site):
    url, asked = site
    done = subprocess.run(settings(tmp_path, url), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    paths = collections.Counter(path for path, _ in asked)
    assert paths.pop("/robots.txt") == 1
    assert paths.pop("/hung_up") == 3  # it is tried again
    assert "Traceback" not in done.stderr
    assert f"not fetched: {url}hung_up (" in done.stderr
    assert set(paths.values()) == {1}, paths
    assert set(paths) == {
        "/", "/de", "/fr", "/en2", "/hidden", "/map.xml", "/missing", "/inside",
        "/elsewhere", *(f"/calendar/{n}" for n in (1, 2, 3, 4)),
    }  # fmt: skip
    assert {agent for _, agent in asked} == {"llm-lifecycle (+test)"}
    stats = json.loads((tmp_path / "pages/stats.json").read_text())
    assert stats["refused/private address"] == 2  # 10.0.0.1, and localhost
    assert stats["refused/robots.txt"] == 1
    failed = [n for name, n in stats.items() if name.startswith("failed/")]
    assert sum(failed) == done.stderr.count("not fetched: ") >= 1
    pages = written(tmp_path)
    assert len(pages) == 9 and set(pages.values()) == {"text/html"}
    check_read(tmp_path, pages)


def written(tmp_path):
    """{url: payload type} of the responses, by warcio."""
    from warcio.archiveiterator import ArchiveIterator

    found = {}
    for path in sorted((tmp_path / "pages").glob("*.warc.gz")):
        with path.open("rb") as file:
            for record in ArchiveIterator(file):
                if record.rec_type == "response":
                    head = record.rec_headers
                    uri = head["WARC-Target-URI"]
                    assert uri not in found
                    found[uri] = head["WARC-Identified-Payload-Type"]
    return found


def check_read(tmp_path, pages):
    """The source `warc` reads all that was written."""
    pytest.importorskip("fastwarc")
    pytest.importorskip("resiliparse")
    spec = {"name": "warc", "path": str(tmp_path / "pages")}
    documents = list(registry.build("sources", spec)(lambda *_: None))
    assert {d.meta["url"] for d in documents} == set(pages)
    assert {"de", "fr"} <= {d.meta.get("language") for d in documents}
    assert all("été" in d.text for d in documents)


def test_a_killed_crawl_goes_on(tmp_path, site):
    url, asked = site
    command = settings(tmp_path, url, delay=0.2, depth=9)
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    log, until = tmp_path / "pages/fetched.jsonl", time.monotonic() + 30
    while not log.exists() or log.read_text().count("\n") < 4:
        assert time.monotonic() < until and child.poll() is None
        time.sleep(0.02)
    child.kill()
    child.wait()
    done = {
        u for line in log.read_text().splitlines() for u in json.loads(line)["urls"]
    }
    del asked[:]
    command = settings(tmp_path, url, depth=9)
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    again = {url[:-1] + path for path, _ in asked}
    assert len(done) >= 4 and not again & done
    assert {url + f"calendar/{n}" for n in range(1, 10)} <= done | again
    assert len(written(tmp_path)) == 14


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("8.8.8.8", False), ("2606:4700::1111", False), ("::ffff:8.8.8.8", False),
        ("64:ff9b::808:808", False), ("2002:808:808::", False),
        ("127.0.0.1", True), ("10.1.2.3", True), ("172.16.0.1", True),
        ("192.168.0.1", True), ("169.254.169.254", True), ("100.64.0.1", True),
        ("0.0.0.0", True), ("224.0.0.1", True), ("::1", True), ("::", True),
        ("fe80::1%eth0", True), ("fc00::1", True), ("ff02::1", True),
        ("2001:db8::1", True), ("::ffff:127.0.0.1", True),
        ("64:ff9b::7f00:1", True), ("2002:7f00:1::", True), ("2002:a00:1::", True),
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address, refused):
    from llm.corpus.crawl_worker import private

    assert private(address) is refused
