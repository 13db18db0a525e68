"""Pages that were saved: a folder of HTML files, as a mirror or a manual has them.

A file is a document and is named by its path; its group is the top-level folder, or the
file itself at the top. The main text is taken out in a process of its own
(`llm/corpus/extract.py`), so no page can hang or end the run; meta has the language and
the licence that a page says it has. What has no text, takes too long or is too large is
left out and counted.

    --config=configs/quickstart.py:text=html:mirror/
"""

import functools
import pathlib
from collections.abc import Iterable

from llm.corpus import extract, file_reader, record_fields
from llm.corpus.file_source import Documents, Files
from llm.document import Document, Source
from llm.knobs import maker

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.html"))}
NEEDS = ("resiliparse",)

_WANTED = file_reader.ending(".html", ".htm", ".xhtml")


def _build(knobs: extract.Knobs) -> Source:
    def read(files: Iterable[file_reader.File], skip: file_reader.Skip) -> Documents:
        with extract.pages(knobs.extractor, knobs.seconds) as page:
            for file, name, *_ in files:
                content = file_reader.whole(file, name, knobs.max_page_bytes, skip)
                if content is None:
                    continue
                made = page(content)
                if "refused" in made:
                    skip(f"not extracted: {made['refused']}", name)
                elif not made["text"].strip():
                    skip("empty", name)
                else:
                    text = record_fields.encodable(made.pop("text"))
                    group, size = name.partition("/")[0], len(text.encode())
                    meta = {field: found for field, found in made.items() if found}
                    yield Document(name, text, "html", group, "prose", size, meta)

    files = functools.partial(file_reader.files, knobs.path, "HTML", _WANTED)
    return Files(files, read, knobs.max_documents)


make = maker(_build, extract.Knobs)
