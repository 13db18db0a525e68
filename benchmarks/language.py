"""How well languages are identified, on the Universal Declaration of Human Rights.

    python benchmarks/language.py UDHR2.zip
    python benchmarks/language.py UDHR2.zip --model=lid.176.ftz

UDHR2.zip is the corpus `udhr2` of NLTK: the declaration in some 380 translations, a
file each, named by ISO 639-3. Those in a language that the identifier knows are cut
into pieces of 100 and of 400 characters, and every piece is asked for. Printed:
accuracy over pieces, the mean of the languages' F1, the share of pieces that thresholds
keep and the accuracy among these, and pieces a second.
"""

import argparse
import collections
import time
import zipfile

from llm.stages import language

# The files' names, by ISO 639-3, and the codes that identifiers use.
_FILES = (
    "afr:af amh:am arb:ar ast:ast azj_latn:az bel:be bul:bg ben:bn bre:br bos_latn:bs "
    "cat:ca ces:cs cym:cy dan:da deu:de ell_monotonic:el eng:en epo:eo spa:es est:et "
    "eus:eu pes_1:fa fin:fi fao:fo fra:fr fri:fy gle:ga gla:gd glg:gl guj:gu heb:he "
    "hin:hi hrv:hr hat_popular:ht hun:hu hye:hy ind:id isl:is ita:it jpn:ja jav:jv "
    "kat:ka kaz:kk khm:km kan:kn kor:ko kir:ky lat:la ltz:lb lao:lo lit:lt lav:lv "
    "plt:mg mkd:mk mal:ml khk:mn mar:mr mly_latn:ms mlt:mt nep:ne nld:nl nno:nn nob:no "
    "pan:pa pol:pl pbu:ps por_PT:pt por_BR:pt quy:qu ron:ro rus:ru kin:rw san:sa "
    "sme:se slk:sk slv:sl som:so als:sq srp_cyrl:sr swe:sv swh:sw tam:ta tha:th tgl:tl "
    "tur:tr uig_arab:ug ukr:uk urd:ur uzn_latn:uz vie:vi wln:wa xho:xh yor:yo "
    "cmn_hans:zh zul:zu tat:tt tgk:tg tuk_latn:tk tel:te sin:si mya:my ckb:ckb"
)
_CODES = dict(entry.split(":") for entry in _FILES.split())


def pieces(text, size):
    """Stretches of whole words of about `size` characters, without the heading."""
    found = " ".join(text.split())[200:]
    starts = range(0, len(found) - size, size)
    return [found[start : start + size] for start in starts]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus")
    parser.add_argument("--model", default="", help="a fastText model")
    args = parser.parse_args()
    identify, known = language.identifier(args.model)
    texts = collections.defaultdict(str)
    with zipfile.ZipFile(args.corpus) as archive:
        for name in archive.namelist():
            code = _CODES.get(name.split("/")[-1].removesuffix(".txt"))
            if code in known:
                texts[code] += archive.read(name).decode("utf-8") + "\n"
    for size in (100, 400):
        found = []
        start = time.perf_counter()
        for code, text in texts.items():
            found += [(code, *identify(piece)[0]) for piece in pieces(text, size)]
        seconds = time.perf_counter() - start
        report(size, found, len(found) / seconds)


def report(size, found, speed):
    """Prints the figures of (true, said, probability) triples."""
    right = collections.Counter(true for true, said, _ in found if true == said)
    count = collections.Counter(true for true, _, _ in found)
    said = collections.Counter(said for _, said, _ in found)
    f1 = {c: 2 * right[c] / (count[c] + said[c]) for c in count}
    worst = sorted(f1, key=f1.get)[:8]
    print(f"{size} characters: {len(count)} languages, {len(found)} pieces, "
          f"accuracy {right.total() / len(found):.4f}, "
          f"F1 {sum(f1.values()) / len(f1):.4f} (mean over languages), "
          f"{speed:.0f} pieces/s")  # fmt: skip
    print("  lowest F1:", ", ".join(f"{c} {f1[c]:.2f}" for c in worst))
    mixed = collections.Counter((t, s) for t, s, _ in found if t != s).most_common(6)
    print("  mixed up:", ", ".join(f"{t} as {s} {n}" for (t, s), n in mixed))
    for least in (0.3, 0.5, 0.65, 0.8, 0.9):
        sure = [true == said for true, said, p in found if p >= least]
        print(f"  probability {least} or more: {len(sure) / len(found):.3f} kept, "
              f"{sum(sure) / max(len(sure), 1):.4f} of these right")  # fmt: skip


if __name__ == "__main__":
    main()
