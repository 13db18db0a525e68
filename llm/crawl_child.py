"""The process that fetches pages for the workload `crawl`, by scrapy.

It reads its settings as JSON, writes `pages-NNNNN.warc.gz` and, once a page is on the
disk, a line of `fetched.jsonl`: url, status, depth and the links in it. These lines are
all the state there is: what they name is not fetched again, and what they link to and
do not name is what is left to do. (scrapy's own state is pickled, and lost by a kill.)

    python -P llm/crawl_child.py SETTINGS.json
"""

import io
import ipaddress
import json
import logging
import os
import pathlib
import sys
import urllib.parse

import scrapy
from protego import Protego
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import CloseSpider, IgnoreRequest
from scrapy.linkextractors import LinkExtractor
from scrapy.resolver import CachingThreadedResolver
from scrapy.utils.gz import gunzip, gzip_magic_number
from scrapy.utils.sitemap import Sitemap, sitemap_urls_from_robots
from twisted.internet.error import DNSLookupError
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

SLOWEST = 60.0  # seconds of a robots.txt's Crawl-delay that are kept to
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_OPEN: set[str] = set()  # hosts whose addresses may be private


class Resolver(CachingThreadedResolver):
    """Names to addresses, but not to private ones: checked where it is connected."""

    def getHostByName(self, name, timeout=()):
        """The address, or DNSLookupError for a private one."""

        def check(address):
            if name not in _OPEN and private(address):
                raise DNSLookupError(f"private address {address} of {name}")
            return address

        return super().getHostByName(name, timeout).addCallback(check)


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
        reason = ""
        if parts is None or parts.scheme not in ("http", "https") or not host:
            reason = "not http(s)"
        elif host not in asked["hosts"]:
            reason = "another host"
        elif host not in _OPEN and (literal(host) and private(host)):
            reason = "private address"
        if reason:
            self.crawler.stats.inc_value(f"refused/{reason}")
            raise IgnoreRequest(reason)


class Pages(scrapy.Spider):
    """Follows links and sitemaps of the hosts, breadth first, each URL once."""

    name = "pages"

    def __init__(self, asked):
        super().__init__()
        self.asked, self.done, self.counts, self.origins = asked, {}, {}, set()
        self.parent = os.getppid()
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
                self._count(seen["url"], seen["status"])
                for url in seen["urls"]:
                    self.done[url] = True
                self.left += [(url, seen["depth"] + 1) for url in seen["links"]]
            file.truncate(whole)

    def _count(self, url, status):
        host = urllib.parse.urlsplit(url).hostname
        if status == 200:
            self.counts[host] = self.counts.get(host, 0) + 1

    def _full(self, url):
        host = urllib.parse.urlsplit(url).hostname
        return self.counts.get(host, 0) >= self.asked["pages_per_host"]

    async def start(self):
        """What is left to do."""
        for url, depth in self.left:
            for request in self._request(url, depth):
                yield request

    def _request(self, url, depth, callback=None):
        if url in self.done or depth > self.asked["depth"] or self._full(url):
            return
        origin = urllib.parse.urljoin(url, "/")
        host = urllib.parse.urlsplit(url).hostname
        if origin not in self.origins and host in self.asked["hosts"]:
            self.origins.add(origin)  # first of all, for sitemaps and delay
            yield scrapy.Request(
                origin + "robots.txt", self.robots, priority=100, errback=self.failed,
                meta={"dont_obey_robotstxt": True}, dont_filter=True,
            )  # fmt: skip
        yield scrapy.Request(
            url, callback or self.page, priority=-depth, errback=self.failed,
            cb_kwargs={"depth": depth},
        )  # fmt: skip

    def failed(self, failure):
        """Counts what could not be fetched; another run of the crawl tries it again."""
        if not failure.check(IgnoreRequest):  # which is counted where it is refused
            reason = failure.type.__name__.removeprefix("Download")
            self.crawler.stats.inc_value(f"failed/{reason}")
            url = failure.request.url
            print(f"not fetched: {url} ({reason})", file=sys.stderr, flush=True)

    def robots(self, response):
        """Sitemaps that robots.txt names, and how long it asks to wait."""
        if response.status != 200:
            return
        wait = Protego.parse(response.text).crawl_delay(self.asked["agent"]) or 0
        slot = response.meta.get("download_slot")
        slots = self.crawler.engine.downloader.slots
        if slot in slots:
            slots[slot].delay = max(slots[slot].delay, min(wait, SLOWEST))
        for url in sitemap_urls_from_robots(response.text, base_url=response.url):
            yield from self._request(url, 0, self.sitemap)

    def sitemap(self, response, depth):
        """Pages and sitemaps that a sitemap names."""
        if response.status != 200:
            return
        body = response.body
        if gzip_magic_number(response):
            body = gunzip(body, max_size=self.asked["max_page_bytes"])
        found = Sitemap(body)
        for entry in found:
            callback = self.sitemap if found.type == "sitemapindex" else self.page
            yield from self._request(entry["loc"], depth + 1, callback)

    def page(self, response, depth):
        """Writes a page, then says so; its links come next."""
        if os.getppid() != self.parent:  # nobody waits for it any more
            raise CloseSpider("left alone")
        if self._full(response.url) or response.url in self.done:
            return
        links = []
        if isinstance(response, scrapy.http.HtmlResponse):
            hosts = self.asked["hosts"]
            for link in self.links.extract_links(response):
                url = link.url.partition("#")[0]
                if urllib.parse.urlsplit(url).hostname in hosts and not link.nofollow:
                    links.append(url)
        links = list(dict.fromkeys(links))
        urls = [*response.meta.get("redirect_urls", ()), response.url]
        if response.status == 200:
            self._write(response)
        seen = {"url": response.url, "urls": urls, "status": response.status}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**seen, "depth": depth, "links": links}) + "\n")
        for url in urls:
            self.done[url] = True
        self._count(response.url, response.status)
        if sum(self.counts.values()) >= self.asked["pages"]:
            raise CloseSpider("pages")
        for url in links:
            yield from self._request(url, depth + 1)

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
    asked = json.loads(pathlib.Path(path).read_text())
    _OPEN.update(asked["private_hosts"])
    # It tells with a stack what the errback of the page tells in a line.
    logging.getLogger("scrapy.downloadermiddlewares.robotstxt").disabled = True
    handlers = dict.fromkeys(("data", "file", "ftp", "s3"))
    process = CrawlerProcess(
        {
            "ASKED": asked,
            "USER_AGENT": asked["agent"],
            "ROBOTSTXT_OBEY": True,
            "DOWNLOAD_DELAY": asked["delay"],
            "CONCURRENT_REQUESTS_PER_DOMAIN": 1,
            "DOWNLOAD_MAXSIZE": asked["max_page_bytes"],
            "DOWNLOAD_WARNSIZE": 0,
            "DOWNLOAD_TIMEOUT": asked["seconds"],
            "DOWNLOAD_HANDLERS": handlers,
            "DNS_RESOLVER": Resolver,
            "DOWNLOADER_MIDDLEWARES": {Border: 50},
            "HTTPERROR_ALLOW_ALL": True,
            "REDIRECT_MAX_TIMES": 5,
            "RETRY_TIMES": 2,
            "URLLENGTH_LIMIT": 1000,
            "COOKIES_ENABLED": False,
            "TELNETCONSOLE_ENABLED": False,
            "LOG_LEVEL": "ERROR",
            "SCHEDULER_PRIORITY_QUEUE": "scrapy.pqueues.DownloaderAwarePriorityQueue",
        }
    )
    crawler = process.create_crawler(Pages)
    process.crawl(crawler, asked=asked)
    process.start()
    told = crawler.stats.get_stats() if crawler.stats else {}
    told = {k: v for k, v in told.items() if isinstance(v, int | float | str)}
    pathlib.Path(asked["folder"], "stats.json").write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
