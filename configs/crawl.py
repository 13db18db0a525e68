"""Fetches the pages of some sites, politely, into WARC files.

    python -m llm.main --config=configs/crawl.py --workdir=runs/crawl \\
        --config.crawl.start="('https://example.org/',)" \\
        --config.crawl.contact=https://example.org/about

robots.txt is obeyed, with its delay; one request at a time goes to a host. Links and
sitemaps are followed on the hosts of `start` and `crawl.hosts` alone, to
`crawl.pages_per_host` pages each; private addresses are refused, redirects to them too,
unless `crawl.private_hosts` names the host. The same command goes on after any end.
Expected: `runs/crawl/pages/*.warc.gz` and crawl.json, a page a second and host. They
are what `configs/quickstart.py:text=warc:runs/crawl/pages` learns.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base()
    c.workload = "crawl"
    if arg.debug:
        c.crawl.pages = 3
    return config.debug(c) if arg.debug else c
