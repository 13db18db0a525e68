"""A hook of mkdocs: links to files outside docs/ become plain text on the site.

Pages link to the code, `[main.py](../llm/main.py)`, which a site does not have. In a
checkout, tests/test_docs.py checks these links.
"""

import re

_OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./[^)\s]+\)")


def on_page_markdown(markdown, **page):
    """The text of a page, without such links."""
    return _OUTSIDE.sub(r"\1", markdown)
