"""A web site made here: 200 pages and more, with all that a crawl meets."""

import contextlib
import http.server
import random
import threading

SENTENCES = {
    "en": (
        "the river rises in the hills and runs through the old town to the sea",
        "many people still cross the stone bridge on their way to the market",
        "in the evening the fishermen mend their nets and talk about the weather",
        "a small museum shows how boats were built with simple tools",
        "the school was opened again after the long winter of that year",
        "from the tower you can see the fields, the forest and the harbour",
        "bread is baked there every morning before the sun comes up",
        "nobody remembers who planted the trees along the northern road",
    ),
    "de": (
        "der Fluss entspringt in den Bergen und fließt durch die alte Stadt zum Meer",
        "viele Menschen gehen noch über die steinerne Brücke zum Markt",
        "am Abend flicken die Fischer ihre Netze und reden über das Wetter",
        "ein kleines Museum zeigt, wie Boote mit einfachem Werkzeug gebaut wurden",
        "die Schule wurde nach dem langen Winter jenes Jahres wieder geöffnet",
        "vom Turm aus sieht man die Felder, den Wald und den Hafen",
        "das Brot wird dort jeden Morgen gebacken, bevor die Sonne aufgeht",
        "niemand weiß mehr, wer die Bäume an der nördlichen Straße gepflanzt hat",
    ),
    "fr": (
        "la rivière naît dans les collines et traverse la vieille ville vers la mer",
        "beaucoup de gens passent encore le pont de pierre pour aller au marché",
        "le soir, les pêcheurs réparent leurs filets et parlent du temps qu'il fait",
        "un petit musée montre comment on construisait les bateaux à la main",
        "l'école a été ouverte de nouveau après le long hiver de cette année",
        "de la tour on voit les champs, la forêt et le port de la ville",
        "le pain y est cuit chaque matin avant que le soleil se lève",
        "personne ne se rappelle qui a planté les arbres le long de la route",
    ),
}
NOTICE = (
    "This notice stands on a good number of the pages here and says that all of what "
    "is written on them may be read by everybody without asking."
)
PLANTED = ("ann.smith@mail.org", "4111 1111 1111 1111", "+49 30 901820")


def pages(seed: int = 0) -> dict[str, bytes]:
    """{path: HTML}: 210 articles, of which some are copies and near copies."""
    rng, made, texts = random.Random(seed), {}, []
    for n in range(210):
        language = ("en", "en", "de", "fr")[n % 4]
        if n >= 180:  # a near copy of an earlier page: another last sentence
            language, text = texts[n - 180]
            text = [*text[:-1], text[-1] + " And that is all there is to tell of it."]
        elif n >= 170:  # another address of an earlier page
            language, text = texts[n - 100]
        else:
            text = [" ".join(_sentence(rng, language, n) for _ in range(6))
                    for _ in range(3)]  # fmt: skip
        texts.append((language, text))
        same = n - 100 if 170 <= n < 180 else n
        shown = [*text, NOTICE] if same % 3 == 0 else list(text)
        if n < 30 and n % 10 == 0:
            shown[0] += f" Write to {PLANTED[n // 10]} about it."
        page = _html(language, f"Page {same}", shown, _links(n))
        made[f"/{language}/{n}.html"] = page
    made["/thin.html"] = _html("en", "Thin", ["Too little."], "")
    made["/list.html"] = _html("en", "List", ["again and again "] * 60, "")
    made["/deep.html"] = b"<html><body>" + b"<div>" * 5000 + b"deep" + b"</body></html>"
    made["/latin.html"] = _html(
        "fr", "Latin", [_sentence(rng, "fr", 5) for _ in range(12)], ""
    ).replace(b"utf-8", b"latin-1").decode().encode("latin-1")  # fmt: skip
    made["/private/secret.html"] = _html("en", "No", ["a secret " * 80], "")
    starts = "".join(f'<a href="{path}">{path}</a> ' for path in list(made)[:12])
    more = '<a href="/private/secret.html">x</a><a href="/calendar/1">x</a>'
    others = "".join(f'<a href="/{n}.html">x</a>' for n in ("thin", "list", "deep",
                     "latin", "missing", "picture"))  # fmt: skip
    made["/"] = _html("en", "Start", ["Welcome."], starts + more + others)
    return made


def _sentence(rng: random.Random, language: str, n: int) -> str:
    words = rng.choice(SENTENCES[language]).split()
    for place in rng.sample(range(len(words)), 4):
        words[place] = rng.choice(rng.choice(SENTENCES[language]).split())
    return " ".join(words).capitalize() + f" {rng.randrange(1000, 9999)}."


def _links(n: int) -> str:
    """Every page leads to some others, so that all are found."""
    found = []
    for k in range(3 * n + 1, 3 * n + 13):
        if k < 210:
            language = ("en", "en", "de", "fr")[k % 4]
            if k >= 180:
                language = ("en", "en", "de", "fr")[(k - 180) % 4]
            elif k >= 170:
                language = ("en", "en", "de", "fr")[(k - 100) % 4]
            found.append(f'<li><a href="/{language}/{k}.html">Page {k}</a></li>')
    return "".join(found)


def _html(language: str, title: str, paragraphs: list[str], links: str) -> bytes:
    body = "".join(f"<p>{paragraph}</p>\n" for paragraph in paragraphs)
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        f"<title>{title}</title></head><body><nav><ul>{links}</ul></nav>"
        f"<main><article><h1>{title}</h1>\n{body}</article></main>"
        "<footer>Imprint | Privacy</footer></body></html>"
    ).encode()


@contextlib.contextmanager
def served(made: dict[str, bytes]):
    """(URL, paths that were asked for) of a server of these pages."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, kind, body = 200, "text/html", made.get(self.path)
            if self.path == "/robots.txt":
                kind, body = "text/plain", b"User-agent: *\nDisallow: /private\n"
            elif self.path.startswith("/calendar/"):  # goes on for ever
                then = int(self.path[10:]) + 1
                body = _html("en", "Day", ["x"], f'<a href="/calendar/{then}">x</a>')
            elif self.path == "/picture.html":
                kind, body = "image/png", b"\x89PNG" + bytes(range(256))
            elif body is None:
                status, body = 404, b"none"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
