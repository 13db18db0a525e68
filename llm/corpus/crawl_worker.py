"""The process that fetches pages for the workload `crawl`, by scrapy.

It reads its settings as JSON, writes `pages-NNNNN.warc.gz` and, once a page is on the
disk, a line of `fetched.jsonl`: url, status, depth and the links in it. These lines are
all the state there is: what they name is not fetched again, and what they link to and
do not name is what is left to do. (scrapy's own state is pickled, and lost by a kill.)

robots.txt comes before everything else of a host (RFC 9309): without one (4xx) all is
allowed; without an answer (5xx, 429, no connection) nothing is. A host that says
`Retry-After` (RFC 9110, 10.2.3) with 429 or 503 gets no request before that; one that
asks for longer than `LONGEST_WAIT` gets none in this run.

    python -P llm/corpus/crawl_worker.py SETTINGS.json
"""

import asyncio
import datetime
import email.utils
import io
import ipaddress
import json
import os
import pathlib
import re
import sys
import time
import urllib.parse

import scrapy
from protego import Protego
from scrapy import signals
from scrapy.crawler import Crawler, CrawlerProcess
from scrapy.exceptions import (
    CannotResolveHostError,
    CloseSpider,
    DownloadCancelledError,
    IgnoreRequest,
)
from scrapy.http.request import NO_CALLBACK
from scrapy.linkextractors import LinkExtractor
from scrapy.resolver import CachingThreadedResolver
from scrapy.utils.gz import gunzip, gzip_magic_number
from scrapy.utils.sitemap import Sitemap
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

LONGEST_WAIT = 300.0  # seconds of a Retry-After that are waited for
# Without a delay, scrapy begins with all that waits for a host at once, and does not
# look at the time.
_LEAST_DELAY = 1e-3
BUSY = (429, 503)  # statuses of a host that may say so
SLOWEST = 60.0  # seconds of a robots.txt's Crawl-delay that are kept to
RULES = 2**20  # bytes of a robots.txt, if pages may not be larger
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_OPEN: set[str] = set()  # hosts whose addresses may be private
_PRIVATE: set[str] = set()  # other hosts, whose addresses are
# In X-Robots-Tag and `meta`: names and wishes, and wishes that have a value.
# What scrapy itself ignores, by a part of its message.
_OF_SCRAPY = {
    "max redirections reached": "redirects without an end",
    "exceeded DOWNLOAD_MAXSIZE": "unpacks to more than max_page_bytes",
}
_WISH = re.compile(r"([a-z][\w.-]*)\s*(:?)")
_VALUED = re.compile(r"(?:max-[a-z-]+|unavailable_after)\s*:\s*[^\s,;]+")


class Resolver(CachingThreadedResolver):
    """Names to addresses, but not to private ones: checked where it is connected."""

    def getHostByName(self, name, timeout=()):
        """The address, or DNSLookupError for a private one."""

        def check(address):
            if name not in _OPEN and private(address):
                _PRIVATE.add(name)
                raise DNSLookupError(f"private address {address} of {name}")
            return address

        return super().getHostByName(name, timeout).addCallback(check)


class Refused(IgnoreRequest):
    """What we do not want, or have counted; scrapy has reasons of its own."""


class Border:
    """Refuses requests, redirects too, that leave the hosts, http(s) or the public."""

    def __init__(self, crawler):
        self.crawler = crawler

    @classmethod
    def from_crawler(cls, crawler):
        """As scrapy makes it."""
        return cls(crawler)

    def process_request(self, request):
        """Raises IgnoreRequest, and counts why."""
        try:
            parts = urllib.parse.urlsplit(request.url)
            host = parts.hostname or ""
        except ValueError:
            host, parts = "", None
        asked = self.crawler.settings.getdict("ASKED")
        if parts is None or parts.scheme not in ("http", "https") or not host:
            self._refuse(request, "not http(s)")
        elif host not in asked["hosts"] and "rules" not in request.meta:
            self._refuse(request, "another host")
        elif host not in _OPEN and (literal(host) and private(host)):
            self._refuse(request, "private address")
        # A redirect has that of the host it comes from, whose delay is another.
        request.meta["download_slot"] = host

    def process_exception(self, request, exception):
        """Calls a private address what it is, before it is tried again."""
        if not isinstance(exception, CannotResolveHostError):
            return  # its URL may be none
        if urllib.parse.urlsplit(request.url).hostname in _PRIVATE:
            self._refuse(request, "private address")

    def _refuse(self, request, reason):
        if "rules" not in request.meta:  # which the pages that wait for it are for
            self.crawler.stats.inc_value(f"refused/{reason}")
        raise Refused(reason)


class Robots:
    """Refuses what the robots.txt of an origin does not allow; keeps to its delay.

    It is fetched before all else of an origin, once, and whatever comes meanwhile waits
    for it. (scrapy's own lets all pass that wait, but for the first.)
    """

    def __init__(self, crawler):
        self.crawler, self.rules = crawler, {}
        self.agent = product(crawler.settings["USER_AGENT"])
        crawler.signals.connect(self.answered, signals.response_downloaded)
        crawler.signals.connect(self.dropped, signals.request_dropped)
        crawler.signals.connect(self.queued, signals.request_reached_downloader)

    @classmethod
    def from_crawler(cls, crawler):
        """As scrapy makes it."""
        return cls(crawler)

    def answered(self, response, request):
        """Lets a delay begin with an answer: no two requests come closer than it."""
        host = request.meta["download_slot"]
        slot = self.crawler.engine.downloader.slots.get(host)
        if not slot:
            return
        slot.lastseen = time.monotonic()
        wait = retry_after(response) if response.status in BUSY else 0
        if wait > LONGEST_WAIT:
            self.crawler.spider.leave(host, wait)
        elif wait:
            told = f"{host} asks to wait {wait:g} s ({response.status}): waiting"
            print(told, file=sys.stderr, flush=True)
            slot.lastseen += wait

    def queued(self, request):
        """Drops what comes to wait at a host just after the last page was taken."""
        if self.crawler.spider.over(request.url):
            asyncio.get_running_loop().call_soon(self.crawler.spider.drop)

    def dropped(self, request):
        """Counts redirects that lead back, which scrapy drops as seen before."""
        if request.url in request.meta.get("redirect_urls", ()):
            self.crawler.spider.lost(request.url, "redirects without an end")

    async def process_request(self, request):
        """Raises IgnoreRequest, and counts why."""
        if "rules" in request.meta:
            if self.crawler.spider.ended:  # it would be tried again
                raise Refused("enough pages")
            return
        origin = urllib.parse.urljoin(request.url, "/")
        if origin not in self.rules:
            self.rules[origin] = asyncio.ensure_future(self._fetch(origin))
        rules, reason = await self.rules[origin]
        if self.crawler.spider.over(request.url):
            raise Refused("enough pages")
        if rules and not rules.can_fetch(request.url, self.agent):
            reason = "robots.txt"
        if reason:
            self.crawler.stats.inc_value(f"refused/{reason}")
            raise Refused(reason)

    async def _fetch(self, origin):
        """The rules, or None and why nothing may be fetched."""
        most = max(RULES, self.crawler.spider.asked["max_page_bytes"])
        request = scrapy.Request(
            origin + "robots.txt", NO_CALLBACK, priority=100,
            meta={"rules": True, "download_maxsize": most},
        )  # fmt: skip
        try:
            response = await self.crawler.engine.download_async(request)
        except Exception as error:  # of any kind: we do not know what is allowed
            return None, self._unreachable(origin, reason_of(error))
        if response.status // 100 not in (2, 4) or response.status == 429:
            return None, self._unreachable(origin, str(response.status))
        body = response.body if response.status // 100 == 2 else b""
        rules = Protego.parse(body.decode("utf-8-sig", errors="ignore"))
        self._slow_down(origin, rules.crawl_delay(self.agent) or 0)
        spider = self.crawler.spider
        for url in rules.sitemaps:
            url = urllib.parse.urljoin(response.url, url)
            for request in spider.wanted(url, 0, spider.sitemap):
                self.crawler.engine.crawl(request)
        return rules, ""

    def _unreachable(self, origin, why):
        if urllib.parse.urlsplit(origin).hostname in _PRIVATE:
            return "private address"
        if not self.crawler.spider.over(origin):
            told = f"nothing is fetched from {origin}: robots.txt unreachable ({why})"
            print(told, file=sys.stderr, flush=True)
        return "robots.txt unreachable"

    def _slow_down(self, origin, seconds):
        host = urllib.parse.urlsplit(origin).hostname
        downloader = self.crawler.engine.downloader
        longer = self.crawler.settings.getfloat("DOWNLOAD_DELAY")
        longer = downloader.per_slot_settings.get(host, {}).get("delay", longer)
        longer = max(longer, min(seconds, SLOWEST))
        downloader.per_slot_settings[host] = {"delay": longer}  # of slots to come
        if host in downloader.slots:
            downloader.slots[host].delay = longer


class Crawling(Crawler):
    """Ends when it is told to, not when all that waits for its turn has had it."""

    async def stop_async(self):
        """What a signal calls."""
        if self.engine:
            self.spider.end()
        await super().stop_async()


class Pages(scrapy.Spider):
    """Follows links and sitemaps of the hosts, breadth first, each URL once."""

    name = "pages"

    def __init__(self, asked):
        super().__init__()
        self.asked, self.done, self.counts = asked, {}, {}
        self.parent, self.ended = os.getppid(), False
        self.later: set[str] = set()  # hosts that ask for more patience than we have
        folder = pathlib.Path(asked["folder"])
        self.log = folder / "fetched.jsonl"
        self.left = [(url, 0) for url in asked["start"]]
        self._resume()
        number = len(list(folder.glob("pages-*.warc.gz")))
        self.file = (folder / f"pages-{number:05d}.warc.gz").open("xb")
        self.writer = WARCWriter(self.file, gzip=True, warc_version="1.1")
        software = {"software": "llm-lifecycle", "robots": "obey"}
        self.writer.write_record(self.writer.create_warcinfo_record("", software))
        self.links = LinkExtractor()

    def _resume(self):
        if not self.log.exists():
            return
        whole = 0
        with self.log.open("rb+") as file:
            for line in file:
                if not line.endswith(b"\n"):  # of a process that was killed
                    break
                whole += len(line)
                seen = json.loads(line)
                self._count(seen)
                for url in seen["urls"]:
                    self.done[url] = True
                self.left += [(url, seen["depth"] + 1) for url in seen["links"]]
            file.truncate(whole)

    def _count(self, seen):
        host = urllib.parse.urlsplit(seen["url"]).hostname
        if seen["status"] == 200 and not seen.get("refused"):
            self.counts[host] = self.counts.get(host, 0) + 1

    def _enough(self, url):
        host = urllib.parse.urlsplit(url).hostname
        of_host = self.counts.get(host, 0) >= self.asked["pages_per_host"]
        return of_host or sum(self.counts.values()) >= self.asked["pages"]

    def over(self, url):
        """Whether no more is to be fetched from this URL's host."""
        host = urllib.parse.urlsplit(url).hostname
        return self.ended or host in self.later or self._enough(url)

    def leave(self, host, seconds):
        """Asks nothing more of a host in this run."""
        if host in self.later:
            return
        self.later.add(host)
        self.crawler.stats.inc_value(f"failed/asks to wait over {LONGEST_WAIT:g} s")
        told = f"nothing more is fetched from {host} in this run: it asks to wait "
        told += f"{seconds:g} s, and {LONGEST_WAIT:g} s are waited at the most"
        print(told, file=sys.stderr, flush=True)
        self.drop()

    def end(self):
        """Lets nothing begin any more."""
        self.ended = True
        self.drop()

    def drop(self):
        """Drops what waits for its turn at a host, if no more is wanted there."""
        for slot in list(self.crawler.engine.downloader.slots.values()):
            while slot.queue and self.over(slot.queue[0][0].url):
                _, waiting = slot.queue.popleft()
                waiting.errback(Failure(Refused("enough pages")))

    async def start(self):
        """What is left to do."""
        for url, depth in self.left:
            for request in self.wanted(url, depth):
                yield request

    def wanted(self, url, depth, callback=None):
        """The request for a URL, if there is to be one."""
        try:
            if url in self.done or depth > self.asked["depth"] or self.over(url):
                return
            request = scrapy.Request(
                url, callback or self.page, priority=-depth, errback=self.failed,
                cb_kwargs={"depth": depth},
            )  # fmt: skip
        except ValueError:  # it is no URL
            self.crawler.stats.inc_value("refused/not http(s)")
            return
        yield request

    def failed(self, failure):
        """Counts what could not be fetched; another run of the crawl tries it again."""
        if not failure.check(Refused):  # which is counted where it is refused
            self.lost(failure.request.url, reason_of(failure.value))

    def lost(self, url, reason):
        """Counts and says why a page is not fetched."""
        self.crawler.stats.inc_value(f"failed/{reason}")
        print(f"not fetched: {url} ({reason})", file=sys.stderr, flush=True)

    def sitemap(self, response, depth):
        """Pages and sitemaps that a sitemap names."""
        if response.status != 200:
            return
        body = response.body
        if gzip_magic_number(response):
            body = gunzip(body, max_size=self.asked["max_page_bytes"])
        try:
            found = Sitemap(body)
            entries = list(found)
        except Exception:  # of any kind: it is none
            self.crawler.stats.inc_value("failed/no sitemap")
            return
        for entry in entries:
            callback = self.sitemap if found.type == "sitemapindex" else self.page
            yield from self.wanted(entry["loc"], depth + 1, callback)

    def page(self, response, depth):
        """Writes a page, then says so; its links come next."""
        if os.getppid() != self.parent:  # nobody waits for it any more
            self.end()
            raise CloseSpider("left alone")
        if self._enough(response.url) or response.url in self.done:
            return  # it was on its way when the last page came
        if response.status in BUSY:  # it was tried again; another run asks for it
            self.lost(response.url, f"status {response.status}")
            return
        wishes = unwanted(response, product(self.asked["agent"]))
        links = [] if "nofollow" in wishes else self._links(response)
        urls = [*response.meta.get("redirect_urls", ()), response.url]
        seen = {"url": response.url, "urls": urls, "status": response.status}
        if response.status == 200 and "noindex" in wishes:
            seen["refused"] = "noindex"
        elif response.status == 200:
            self._write(response)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**seen, "depth": depth, "links": links}) + "\n")
        for url in urls:
            self.done[url] = True
        self._count(seen)
        self.drop()
        if sum(self.counts.values()) >= self.asked["pages"]:
            raise CloseSpider("pages")
        for url in links:
            yield from self.wanted(url, depth + 1)

    def _links(self, response):
        if not isinstance(response, scrapy.http.HtmlResponse):
            return []
        links = []
        for link in self.links.extract_links(response):
            url = link.url.partition("#")[0]
            host = urllib.parse.urlsplit(url).hostname
            if host in self.asked["hosts"] and not link.nofollow:
                links.append(url)
        return list(dict.fromkeys(links))

    def _write(self, response):
        kind = (response.headers.get("Content-Type") or b"").decode("latin-1")
        main = kind.partition(";")[0].strip().lower()
        html = isinstance(response, scrapy.http.HtmlResponse)
        main = main or ("text/html" if html else "application/octet-stream")
        dropped = {"content-encoding", "transfer-encoding", "content-length"}
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, values in response.headers.items()
            for value in values
            if name.decode("latin-1").lower() not in dropped
        ]  # the body is as it is unpacked
        headers.append(("Content-Length", str(len(response.body))))
        extra = {"WARC-Identified-Payload-Type": main}
        if response.ip_address:
            extra["WARC-IP-Address"] = str(response.ip_address)
        self.writer.write_record(
            self.writer.create_warc_record(
                response.url,
                "response",
                payload=io.BytesIO(response.body),
                http_headers=StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1"),
                warc_headers_dict=extra,
            )
        )
        self.file.flush()


def reason_of(error: BaseException) -> str:
    """What a count calls an error, or why we refused."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, IgnoreRequest):
        for part, reason in _OF_SCRAPY.items():
            if part in str(error):
                return reason
        return "ignored"  # what scrapy says may hold a part of a page
    if isinstance(error, DownloadCancelledError):
        return "larger than max_page_bytes"
    return type(error).__name__.removeprefix("Download")


def retry_after(response) -> float:
    """Seconds that a response asks to wait, as such or as a date; 0 if it does not."""
    told = (response.headers.get("Retry-After") or b"").decode("latin-1").strip()
    if told.isascii() and told.isdigit():
        return float(told[:12])
    try:
        date = email.utils.parsedate_to_datetime(told)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max((date - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0)


def product(agent: str) -> str:
    """The name that sites know us by, without what follows it."""
    return agent.partition(" ")[0].lower()


def unwanted(response, name: str) -> set[str]:
    """What a page asks not to have done with it, by `meta` or X-Robots-Tag.

    Both tell it to all (`noindex`) or by name (`<meta name="llm-lifecycle" …>`,
    `llm-lifecycle: noindex`).
    """
    told = [v.decode("latin-1") for v in response.headers.getlist("X-Robots-Tag")]
    if isinstance(response, scrapy.http.HtmlResponse):
        for meta in response.xpath("//meta[@name and @content]"):
            if meta.attrib["name"].strip().lower() in ("robots", name):
                told.append(meta.attrib["content"])
    found = set()
    for text in told:
        whom = "robots"
        for word, colon in _WISH.findall(_VALUED.sub("", text.lower())):
            if colon:
                whom = word
            elif whom in ("robots", name):
                found |= {"noindex", "nofollow"} if word == "none" else {word}
    return found


def literal(host: str) -> bool:
    """Whether a host is an address itself."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def private(address: str) -> bool:
    """Whether an address is none of the public internet: loopback, 10/8, metadata.

    An IPv6 address that stands for an IPv4 one (mapped, 6to4, NAT64) is as that is.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if found.version == 6:
        within = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            within = ipaddress.IPv4Address(int(found) % 2**32)
        found = within or found
    return not found.is_global or found.is_multicast


def main(path: str) -> None:
    """Crawls as the settings say."""
    asked = json.loads(pathlib.Path(path).read_text("utf-8"))
    _OPEN.update(asked["private_hosts"])
    handlers = dict.fromkeys(("data", "file", "ftp", "s3"))
    process = CrawlerProcess(
        {
            "ASKED": asked,
            "USER_AGENT": asked["agent"],
            "ROBOTSTXT_OBEY": False,  # by `Robots` instead
            "DOWNLOAD_DELAY": max(asked["delay"], _LEAST_DELAY),
            "DOWNLOAD_DELAY_JITTER": 0,
            "CONCURRENT_REQUESTS_PER_DOMAIN": 1,
            "DOWNLOAD_MAXSIZE": asked["max_page_bytes"],
            "DOWNLOAD_WARNSIZE": 0,
            "DOWNLOAD_TIMEOUT": asked["seconds"],
            "DOWNLOAD_HANDLERS": handlers,
            "DNS_RESOLVER": Resolver,
            # Behind RetryMiddleware (550), which is not to try again what they refuse.
            "DOWNLOADER_MIDDLEWARES": {Border: 560, Robots: 570},
            "HTTPERROR_ALLOW_ALL": True,
            "REDIRECT_MAX_TIMES": 5,
            "RETRY_TIMES": 2,
            "RETRY_GIVE_UP_LOG_LEVEL": "DEBUG",  # we say it in a line
            "URLLENGTH_LIMIT": 1000,
            "COOKIES_ENABLED": False,
            "TELNETCONSOLE_ENABLED": False,
            "LOG_LEVEL": "ERROR",
            "SCHEDULER_PRIORITY_QUEUE": "scrapy.pqueues.DownloaderAwarePriorityQueue",
        }
    )
    crawler = Crawling(Pages, process.settings, init_reactor=True)
    process.crawl(crawler, asked=asked)
    process.start()
    told = crawler.stats.get_stats() if crawler.stats else {}
    told = {k: v for k, v in told.items() if isinstance(v, int | float | str)}
    pathlib.Path(asked["folder"], "stats.json").write_text(
        json.dumps(told, indent=1), encoding="utf-8"
    )


if __name__ == "__main__":
    main(sys.argv[1])
