"""What sites ask of a crawler, seen from the sites: rules, delays, caps and wishes."""

import collections
import http.server
import itertools
import json
import signal
import subprocess
import threading
import time

import pytest
from test_crawl import settings, written

LOCAL = {"private_hosts": ["127.0.0.1", "localhost"]}
ROBOTS = "User-agent: *\nDisallow: /private\n"


@pytest.fixture
def serve():
    """serve(answer) -> (URL, [(time, host, path)]).

    answer(path, host) gives a body, or (status, body, headers), or hangs up by None.
    """
    servers = []

    def begin(answer):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                host = self.headers["Host"]
                asked.append((time.monotonic(), host.partition(":")[0], self.path))
                found = answer(self.path, host)
                if found is None:
                    self.close_connection = True
                    return
                found = (200, found, {}) if isinstance(found, str) else found
                status, body, headers = found
                kind = "text/plain" if self.path == "/robots.txt" else "text/html"
                self.send_response(status)
                for name, value in {"Content-Type": kind, **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

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


def crawl(tmp_path, url, **more):
    """(stats, stderr) of a crawl that ends well."""
    command = settings(tmp_path, url, **{**LOCAL, **more})
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    stats = json.loads((tmp_path / "pages/stats.json").read_text())
    assert "ERROR" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    return stats, done.stderr


def pages(asked):
    """How often each page was asked for, as host/path."""
    return collections.Counter(
        host + path for _, host, path in asked if path != "/robots.txt"
    )


def links(*urls):
    """A page of links."""
    return "<p>Text.</p>" + "".join(f'<a href="{url}">x</a>' for url in urls)


def test_all_that_wait_for_a_robots_txt_obey_it(tmp_path, serve):
    """Start URLs, links, redirects and sitemaps, at once, and when it goes on."""

    def answer(path, host):
        port = host.partition(":")[2]
        if path == "/robots.txt":
            time.sleep(0.3)  # so that they do wait
            return ROBOTS + f"Sitemap: http://{host}/map.xml\n"
        if path == "/map.xml":
            urls = [f"http://{host}/{name}" for name in ("private/map", "of_map")]
            return "".join(f"<url><loc>{url}</loc></url>" for url in urls).join(
                ("<urlset>", "</urlset>")
            )
        if path.startswith("/go"):
            to = f"http://localhost:{port}/private/{path[1:]}"
            return 302, "", {"Location": to}
        there = [f"http://localhost:{port}/{n}" for n in ("private/1", "private/2")]
        return links("/private/3", "/go1", "/go2", *there, f"http://{host}/1")

    url, asked = serve(answer)
    start = [url + f"private/{n}" for n in "abcd"] + [url, url + "private/e"]
    stats, _ = crawl(tmp_path, url, start=start, pages=2)
    first = pages(asked)
    more, _ = crawl(tmp_path, url, start=start)
    assert not [path for path in pages(asked) if "private" in path], asked
    assert {"127.0.0.1/map.xml", "127.0.0.1/of_map"} <= set(pages(asked))
    assert {"127.0.0.1/go1", "127.0.0.1/go2"} <= set(pages(asked))
    assert first["127.0.0.1/"] and pages(asked)["127.0.0.1/"] == 1
    assert stats["refused/robots.txt"] >= 5
    assert more["refused/robots.txt"] == 7 + 6  # of the one host and the other
    robots = [host for _, host, path in asked if path == "/robots.txt"]
    assert 1 <= robots.count("localhost") <= 2 and robots.count("127.0.0.1") == 2


@pytest.mark.parametrize("theirs", [0, 0.4])
def test_no_gap_is_shorter_than_the_delay(tmp_path, serve, theirs):
    """Ours or that of robots.txt, by the site's clock, after robots.txt too."""

    def answer(path, host):
        if path == "/robots.txt":
            return ROBOTS + (f"Crawl-delay: {theirs}\n" if theirs else "")
        return links(*(f"/{n}" for n in range(6)))

    url, asked = serve(answer)
    crawl(tmp_path, url, delay=0.1 if theirs else 0.3)
    times = [when for when, _, _ in asked]
    assert len(times) == 8
    gaps = [later - before for before, later in itertools.pairwise(times)]
    assert min(gaps) >= (theirs or 0.3) - 0.01, gaps


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_delay_of_robots_txt_is_kept_to(tmp_path, serve, elsewhere):
    """Half a second between two requests, as the site asks, not as we would.

    Also of a host that the crawl does not begin with, but comes to by a link.
    """

    def answer(path, host):
        if path == "/robots.txt":
            return "User-agent: *\nCrawl-delay: 0.5\n"
        there = host.replace("127.0.0.1", "localhost") if elsewhere else host
        return links(*(f"http://{there}/{n}" for n in range(4)))

    url, asked = serve(answer)
    crawl(tmp_path, url)
    at = [(when, path) for when, host, path in asked
          if not elsewhere or host == "localhost"]  # fmt: skip
    assert at[0][1] == "/robots.txt"
    pages = [when for when, path in at if path != "/robots.txt"]
    assert len(pages) == 4 + (not elsewhere)
    gaps = [later - before for before, later in itertools.pairwise(pages[1:])]
    assert min(gaps) >= 0.49, gaps


def test_a_redirect_keeps_to_the_delay_of_where_it_leads(tmp_path, serve):
    def answer(path, host):
        name, _, port = host.partition(":")
        if path == "/robots.txt":
            return ROBOTS + ("Crawl-delay: 0.4\n" if name == "localhost" else "")
        if name == "127.0.0.1" and path != "/":
            return 302, "", {"Location": f"http://localhost:{port}{path}"}
        return links(*(f"/{n}" for n in range(4))) if path == "/" else "<p>Text."

    url, asked = serve(answer)
    crawl(tmp_path, url)
    times = [when for when, host, _ in asked if host == "localhost"]
    assert len(times) == 5
    gaps = [later - before for before, later in itertools.pairwise(times)]
    assert min(gaps) >= 0.39, gaps


@pytest.mark.parametrize("status", [503, 429, None, "private"])
def test_without_an_answer_about_its_rules_a_host_is_left_alone(
    tmp_path, serve, status
):
    """RFC 9309, 2.3.1.4: no answer is a no, and it is said once."""

    def answer(path, host):
        if path != "/robots.txt":
            return links("/a")
        if status == "private":
            return 302, "", {"Location": "http://10.0.0.1/robots.txt"}
        return status and (status, "", {})

    url, asked = serve(answer)
    stats, told = crawl(tmp_path, url, start=[url, url + "b", url + "c"])
    assert not pages(asked)
    assert stats["refused/robots.txt unreachable"] == 3
    assert told.count("robots.txt") == 1, told
    assert not [name for name in stats if name.startswith("failed/")]


def test_rules_may_lie_elsewhere(tmp_path, serve):
    """RFC 9309, 2.3.1.2: their redirects lead to other hosts, too; pages' do not."""
    there, rules = serve(lambda path, _: ROBOTS)
    there = there.replace("127.0.0.1", "localhost")

    def answer(path, host):
        if path in ("/robots.txt", "/away"):
            return 302, "", {"Location": there.rstrip("/") + path}
        return links("/private", "/a", "/away")

    url, asked = serve(answer)
    stats, _ = crawl(tmp_path, url, hosts=["127.0.0.1"])
    assert set(pages(asked)) == {"127.0.0.1/", "127.0.0.1/a", "127.0.0.1/away"}
    assert [path for _, _, path in rules] == ["/robots.txt"]
    assert stats["refused/another host"] == 1 and stats["refused/robots.txt"] == 1


@pytest.mark.parametrize("body", ["", "no sitemap", "<urlset>"])
def test_a_sitemap_that_is_none(tmp_path, serve, body):
    def answer(path, host):
        if path == "/robots.txt":
            return f"Sitemap: http://{host}/map.xml"
        return body if path == "/map.xml" else links("/a")

    url, asked = serve(answer)
    crawl(tmp_path, url)
    assert {"127.0.0.1/", "127.0.0.1/a", "127.0.0.1/map.xml"} == set(pages(asked))


def test_a_host_without_rules_allows_all(tmp_path, serve):
    url, asked = serve(
        lambda path, _: (
            (403, ROBOTS, {}) if path == "/robots.txt" else links("/private")
        )
    )
    crawl(tmp_path, url)
    assert set(pages(asked)) == {"127.0.0.1/", "127.0.0.1/private"}


def test_a_robots_txt_larger_than_a_page_is_read(tmp_path, serve):
    kind = {"Content-Type": "application/octet-stream"}
    url, asked = serve(
        lambda path, _: (
            (200, "# rules\n" * 9000 + ROBOTS, kind)
            if path == "/robots.txt"
            else links("/private", "/a")
        )
    )
    crawl(tmp_path, url)
    assert set(pages(asked)) == {"127.0.0.1/", "127.0.0.1/a"}


def test_a_private_address_is_called_that(tmp_path, serve):
    url, asked = serve(lambda path, _: "")
    there = url.replace("127.0.0.1", "localhost")
    stats, told = crawl(tmp_path, url, start=[there, there + "a"], private_hosts=[])
    assert not asked
    assert stats["refused/private address"] == 2
    assert not [name for name in stats if name.startswith("failed/")]
    assert "unreachable" not in told and "DNS" not in told


@pytest.mark.parametrize("delay", [0, 30])
def test_no_page_more_than_was_asked_for(tmp_path, serve, delay):
    """What is on its way is dropped; what waits for its turn is not waited for."""

    def answer(path, host):
        if path == "/robots.txt":
            name = host.partition(":")[0]
            return ROBOTS + (f"Crawl-delay: {delay}\n" if name == "localhost" else "")
        there = host.replace("127.0.0.1", "localhost")
        return links(*(f"http://{there}/{n}" for n in range(30)), *map(str, range(30)))

    url, asked = serve(answer)
    began = time.monotonic()
    crawl(tmp_path, url, pages=9)
    assert time.monotonic() - began < 25
    assert len(written(tmp_path)) == 9
    lines = (tmp_path / "pages/fetched.jsonl").read_text().splitlines()
    assert len(lines) == 9
    before = len(pages(asked))
    crawl(tmp_path, url, pages=9)  # has all that it wants
    assert len(pages(asked)) == before and len(written(tmp_path)) == 9
    crawl(tmp_path, url, pages=11)  # and goes on
    assert len(written(tmp_path)) == 11


def test_a_signal_does_not_wait_for_what_waits(tmp_path, serve):
    url, asked = serve(
        lambda path, _: ROBOTS if path == "/robots.txt" else links(*map(str, range(30)))
    )
    start = [url + f"from/{n}" for n in range(9)]
    command = settings(tmp_path, url, start=start, delay=2)
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 30
        while not pages(asked):
            assert time.monotonic() < until and child.poll() is None
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        told = child.communicate(timeout=12)[1]
    finally:
        child.kill()
    assert child.returncode == 0 and not told
    assert len(written(tmp_path)) >= 1
    assert sum(pages(asked).values()) <= 3  # of 9


def test_a_host_that_gave_enough_is_not_asked_again(tmp_path, serve):
    url, asked = serve(
        lambda path, _: ROBOTS if path == "/robots.txt" else links(*map(str, range(60)))
    )
    crawl(tmp_path, url, pages_per_host=3, delay=0.1)
    assert len(written(tmp_path)) == 3
    assert 3 <= sum(pages(asked).values()) <= 6  # of 61


def test_pages_that_do_not_want_to_be_kept_or_followed(tmp_path, serve):
    meta = '<meta name="{}" content="{}">'.format
    wishes = {
        "/noindex": (meta("ROBOTS", "NoIndex"), {}),
        "/nofollow": (meta("robots", "max-image-preview: none, nofollow"), {}),
        "/none": (meta("robots", "none"), {}),
        "/ours": (meta("llm-lifecycle", "noindex, nofollow"), {}),
        "/theirs": (meta("googlebot", "noindex, nofollow"), {}),
        "/about": (meta("description", "robots: noindex, nofollow"), {}),
        "/header": ("", {"X-Robots-Tag": "noindex, nofollow"}),
        "/until": ("", {"X-Robots-Tag": "unavailable_after: 25 Jun 2010 15:00:00 PST"}),
        "/named": ("", {"X-Robots-Tag": "otherbot: noindex, nofollow"}),
        "/us": ("", {"X-Robots-Tag": "nofollow, llm-lifecycle: noindex"}),
    }

    def answer(path, host):
        if path == "/robots.txt":
            return ROBOTS
        head, headers = wishes.get(path, ("", {}))
        to = [*wishes, "/nothing"] if path == "/" else [f"/from{path}"]
        to = [] if path.startswith("/from") else to
        return 200, f"<html><head>{head}</head><body>{links(*to)}", headers

    url, asked = serve(answer)
    crawl(tmp_path, url)
    kept = {page.removeprefix(url[:-1]) for page in written(tmp_path)}
    followed = {"/noindex", "/theirs", "/about", "/until", "/named", "/nothing"}
    own = {"/", "/nofollow"} | followed - {"/noindex"}
    assert kept == own | {f"/from{path}" for path in followed}
    lines = [*map(json.loads, (tmp_path / "pages/fetched.jsonl").open())]
    refused = [line["url"] for line in lines if line.get("refused") == "noindex"]
    assert {page.removeprefix(url[:-1]) for page in refused} == {
        "/noindex", "/none", "/ours", "/header", "/us"
    }  # fmt: skip
    before = len(asked)
    crawl(tmp_path, url)  # nothing of it again, and none of it counts
    assert len(asked) == before
    crawl(tmp_path, url, start=[url + "more"], pages=len(kept) + 1)
    assert len(written(tmp_path)) == len(kept) + 1
