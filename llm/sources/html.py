"""Pages that were saved: a folder of HTML files, as a mirror or a manual has them.

A file is a document and is named by its path; its group is the top-level folder, or the
file itself at the top. The main text is taken out in a process of its own
(`llm/corpus/extract.py`), so no page can hang or end the run; meta has the language and
the licence that a page says it has. What has no text, takes too long or is too large is
left out and counted.

    --config=configs/quickstart.py:text=html:mirror/
"""

import pathlib
from collections.abc import Iterable, Iterator

from llm.corpus import extract, file_reader, record_fields
from llm.corpus.file_source import Files
from llm.document import Document, Source
from llm.errors import InputError

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.html"))}
NEEDS = ("resiliparse",)

_WANTED = file_reader.ending(".html", ".htm", ".xhtml")


def make(
    *,
    path: str = "",
    extractor: str = "resiliparse",
    seconds: float = 10.0,
    max_page_bytes: int = 8 * 2**20,
    max_documents: int = 0,
) -> Source:
    """Makes the source.

    Args:
      path: a file, or a folder of them.
      extractor: resiliparse (fast) or trafilatura (drops more around the article).
      seconds: a page that takes longer is left out.
      max_page_bytes: so is a larger one.
      max_documents: the first so many; 0 takes all.

    Raises:
      InputError: no such file, no such extractor, or a package that is missing.
    """
    if extractor not in extract.EXTRACTORS:
        raise InputError(
            got=f"extractor {extractor!r}", want=" or ".join(extract.EXTRACTORS)
        )

    def files(skip: file_reader.Skip) -> Iterator[file_reader.File]:
        return file_reader.files(path, "HTML", _WANTED, skip)

    def read(
        files: Iterable[file_reader.File], skip: file_reader.Skip
    ) -> Iterator[Document | None]:
        with extract.pages(extractor, seconds) as page:
            for file, name, *_ in files:
                content = file_reader.whole(file, name, max_page_bytes, skip)
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

    return Files(files, read, max_documents)
