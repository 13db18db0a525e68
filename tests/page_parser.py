"""HTML pages as tests read them: whether tags nest, and what is in them."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Checks that tags nest, and collects text, headings and addresses."""

    VOID = {"meta", "br", "link", "img"}

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.headings, self.addresses = [], "", [], []
        self.tags, self.attributes = [], set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {k for k, _ in attrs}
        self.addresses += [v for k, v in attrs if k in ("href", "src", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {k for k, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
