"""Fetches the pages of some sites into WARC files, politely: `workdir/pages/`.

Reads c.crawl. robots.txt is obeyed, and what pages say to robots; one request at a time
goes to a host, with a delay, and only to the hosts that are named. The same command
goes on where an earlier one ended, however it ended. The pages become documents by the
source `warc`.
"""

import collections
import importlib.util
import json
import pathlib
import signal
import urllib.parse

from ml_collections import ConfigDict

from llm import child_process, files, json_text, run_dir
from llm.errors import InputError, Stopped
from llm.knobs import Above0, Amount, Count, Positive, section

_CHILD = pathlib.Path(__file__).parent.parent / "corpus" / "crawl_worker.py"


@section("crawl")
class Crawl:
    """The crawler."""

    # Where a crawl begins: URLs. Only their hosts are visited, and these more.
    start: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    # A page or address at which you are reached; it is told to every site.
    contact: str = ""
    # Seconds between two requests to a host, at least; more where robots.txt asks
    # for it, up to 60.
    delay: Amount = 1.0
    # Most pages, of all hosts and of each; most links from a start.
    pages: Positive = 100_000
    pages_per_host: Positive = 1000
    depth: Count = 8
    # A page that takes longer, in seconds, or is larger is left out.
    seconds: Above0 = 30.0
    max_page_bytes: Positive = 8 * 2**20
    # Hosts that may have private addresses, such as an intranet's.
    private_hosts: tuple[str, ...] = ()


SECTIONS = (Crawl,)


def run(c: ConfigDict, workdir: str) -> dict:
    """Crawls; returns what is in crawl.json.

    Raises:
      InputError: nothing to begin with, no contact, no package scrapy, or another crawl
        in this directory.
    """
    asked = _asked(c)
    with files.lock(workdir, "crawls"):
        return _run(c, workdir, asked)


def _run(c: ConfigDict, workdir: str, asked: dict) -> dict:
    run_dir.claim(workdir, c.to_dict(), device="", devices=0)
    folder = pathlib.Path(files.make_folder(pathlib.Path(workdir) / "pages"))
    asked["folder"] = str(folder)
    settings = pathlib.Path(workdir) / "crawl_settings.json"
    files.write_text(settings, json.dumps(asked, indent=1))
    # A signal of the terminal is for this process, which passes it on: a second one
    # would end the child before it has written what it holds.
    child = child_process.start(_CHILD, str(settings), start_new_session=True)
    try:
        code = child.wait()
    except BaseException:
        child.send_signal(signal.SIGINT)
        child.wait()
        raise
    if code:
        raise Stopped(f"the crawl ended with {code}; the same command goes on", 1)
    made = _counted(folder)
    if not made["pages"]:
        both = (made["refused"] | made["failed"]).items()
        told = ", ".join(f"{why}: {count}" for why, count in both)
        raise InputError(
            got=f"no page from {', '.join(asked['start'])}"
            + (f" ({told})" if told else ""),
            want="one page or more",
            do="see crawl.hosts and crawl.private_hosts, and whether the sites answer",
        )
    files.write_text(pathlib.Path(workdir) / "crawl.json", json.dumps(made, indent=1))
    for host, count in made["pages"].items():
        print(f"{host}: {count} pages", flush=True)
    for reason, count in made["refused"].items():
        print(f"refused, {reason}: {count}", flush=True)
    for reason, count in made["failed"].items():
        print(f"failed, {reason}: {count}", flush=True)
    return made


def _asked(c: ConfigDict) -> dict:
    crawl = c.crawl
    start = [url for url in crawl.start if url]
    hosts = [urllib.parse.urlsplit(url).hostname for url in start]
    bad = [u for u in start if not u.startswith(("http://", "https://"))]
    if not start or bad or not all(hosts):
        raise InputError(
            got=f"crawl.start {tuple(crawl.start)}",
            want="one URL or more, of http or https",
            do="--config.crawl.start=\"('https://example.org/',)\"",
        )
    if not crawl.contact:
        raise InputError(
            got="no crawl.contact",
            want="a page or address where those who run the sites reach you",
            do="--config.crawl.contact=https://example.org/about-my-crawler",
        )
    for package in ("scrapy", "warcio"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                got=f"no package {package}",
                want="the extra `data`",
                do=f"pip install 'llm-lifecycle[data]', or {package} alone",
            )
    return {
        **{name: crawl[name] for name in ("delay", "depth", "pages", "pages_per_host")},
        **{name: crawl[name] for name in ("seconds", "max_page_bytes")},
        "start": start,
        "hosts": sorted({*hosts, *(host for host in crawl.hosts if host)}),
        "private_hosts": [host for host in crawl.private_hosts if host],
        "agent": f"llm-lifecycle (+{crawl.contact})",
    }


def _counted(folder: pathlib.Path) -> dict:
    pages, statuses, unwanted = (collections.Counter() for _ in range(3))
    log = folder / "fetched.jsonl"
    for line in json_text.lines(log):
        seen = json.loads(line)
        statuses[str(seen["status"])] += 1
        if seen.get("refused"):  # which no later run asks for again
            unwanted[seen["refused"]] += 1
        elif seen["status"] == 200:
            pages[urllib.parse.urlsplit(seen["url"]).hostname] += 1
    stats = json.loads((folder / "stats.json").read_text("utf-8"))
    refused, failed = (
        {
            name.removeprefix(kind): count
            for name, count in stats.items()
            if name.startswith(kind)
        }
        for kind in ("refused/", "failed/")
    )
    return {
        "pages": dict(sorted(pages.items())),
        "statuses": dict(statuses),
        "refused": refused | unwanted,
        "failed": failed,
    }
