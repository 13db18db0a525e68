"""Fetches the pages of some sites, politely, into WARC files.

    python -m llm.main --config=configs/crawl.py --workdir=runs/crawl \\
        --config.crawl.start="('https://example.org/',)" \\
        --config.crawl.contact=https://example.org/about

robots.txt is asked for first and obeyed; where it cannot be had (5xx, 429, no
connection) nothing is fetched, where there is none (4xx) all may be. One request at a
time goes to a host, never sooner after an answer than `crawl.delay` or its Crawl-delay
(up to a minute). Pages that say `noindex` are not kept, and links of `nofollow` are not
followed (`meta`, X-Robots-Tag, `rel`). Links and sitemaps are followed on the hosts of
`start` and `crawl.hosts` alone, to `crawl.pages_per_host` pages each; private addresses
are refused, redirects to them too, unless `crawl.private_hosts` names the host. The
same command goes on after any end. Expected: `runs/crawl/pages/*.warc.gz` and
crawl.json, which says what was refused and why, about a page a second and host. They
are what `configs/quickstart.py:text=warc:runs/crawl/pages` learns.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base("crawl")
    if arg.debug:
        c.crawl.pages = 3
    return config.debug(c) if arg.debug else c
