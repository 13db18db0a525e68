"""Writes docs/files.md: every file of the package with the first line of its docstring.

python docs/file_index.py
"""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "files.md"
HEAD = """# Files

Written by `docs/file_index.py`: what the docstring of each file begins with.
"""


def rows(folder):
    """(name, summary) of the files of a folder."""
    for path in sorted(folder.glob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        summary = " ".join(doc.partition("\n\n")[0].split())
        yield path.name, summary


def page():
    """The text of docs/files.md."""
    package = ROOT / "llm"
    folders = [package, *sorted(p for p in package.iterdir() if any(p.glob("*.py")))]
    parts = [HEAD]
    for folder in folders:
        parts.append(f"## {folder.relative_to(ROOT)}/\n")
        parts.append("| file | |\n|---|---|")
        for name, summary in rows(folder):
            link = f"[{name}](../{(folder / name).relative_to(ROOT)})"
            parts.append(f"| {link} | {summary.replace('|', chr(92) + '|')} |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
