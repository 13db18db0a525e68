"""Texts for the rules about quality: short, long, lists, repetitions, other scripts."""

import random

_PROSE = (
    "The river rises in the hills and runs to the sea, as it has for ages.",
    "People who live with it have to know that it may rise in spring.",
    "Mr. Smith said so; nobody believed him!",
    "What would you have done, and why?",
    "In 1998 about 12,500 of them moved to the U.S. and stayed.",
    "It isn't the first time [1] that this happened [citation needed].",
    "“We'll see,” she said, and that was the end of it.",
    "Prices rose by 3.5 % in a year; wages did not.",
)
_LANGUAGES = (
    "Die Würde des Menschen ist unantastbar. Sie zu achten ist Verpflichtung.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心。",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।",
    "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق؟",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน",
    "すべての人間は、生まれながらにして自由である。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
)


def prose(sentences: int, seed: int, line: int = 4, paragraph: int = 2) -> str:
    """Sentences with some words of their own, in lines and paragraphs."""
    rng = random.Random(seed)
    made = []
    for _ in range(sentences):
        found = rng.choice(_PROSE).split()
        found.insert(rng.randrange(len(found)), rng.choice("abcdefgh") * 5 + "ly")
        made.append(" ".join(found))
    lines = [" ".join(made[i : i + line]) for i in range(0, len(made), line)]
    parts = ["\n".join(lines[i : i + paragraph])
             for i in range(0, len(lines), paragraph)]  # fmt: skip
    return "\n\n".join(parts)


def texts() -> list[str]:
    """Some seventy of them; none is empty, nor white space alone."""
    made = ["x", "Hi.", "one two", "...", "word " * 60, "# " * 80, "a\n\n\n\nb\n"]
    made += [prose(n, seed=n) for n in (1, 3, 8, 20, 60, 200, 800)]
    made += [prose(30, seed=n, line=1 + n % 5, paragraph=1 + n) for n in range(8)]
    made += ["\n".join(_LANGUAGES), *(f"{text}\n" * 3 for text in _LANGUAGES)]
    made += [" ".join([text] * 40) for text in _LANGUAGES[:4]]
    body = prose(24, seed=99)
    made += [
        f"{body}\nLorem ipsum dolor sit amet, and so on.",
        f"{body}\nlorem ipsum without its end",
        f"{body}\nTurn on JavaScript to see the rest.",
        f"{body}\nJavascript: if (x) {{ go to {{ there }} }} and so on.",
        f"{body}\nLorem ipsum needs javascript to be of use.",
        f"{body}\nThe set {{1, 2}} has two members.",
        f"{body}\nOur {{site}} uses cookies and has a privacy policy.",
        f"{body}\nThis site uses cookies.\nRead our Privacy Policy now.\nOK.",
        f"{body}\nterms of use",
        f"{body}\n{'x' * 1001} is a long word indeed.\nAnd so. it. goes...",
        f"  {body}  \n\n \n\t\nIt ends [edit]. \r\nWith [12] notes. [3]\n[4]\n",
        body.replace("\n", "\r\n"), body.replace(". ", "...\n"), body.upper(),
        body.replace(" ", "  "), body.replace("e", ""), body.replace("a", "…"),
        "\n".join(f"- {line}" for line in body.split(". ")),
        "\n".join(f"  • item {n}" for n in range(60)),
        "\n".join(f"{n}. {n * n} = {n}^2" for n in range(200)),
        "Home\nNews\nAbout\nContact\n" * 10,
        "\n".join(["The same line comes again, and again."] * 30 + [body]),
        "\n\n".join(["A paragraph.\nOf two lines."] * 9 + [body]),
        body + "\n" + body, "\n\n".join([body] * 4),
        " ".join(body.split()[:7] * 30), " ".join(body.split()[:11] * 3) + body,
        "1 11 1 11 1 " * 12, "ab c d e f g a bc d e f g " * 5,
        "~~~~ ==== **** ---- #### .... " * 20, "¿ ¡ § © ™ ° ± " * 20,
        "e\u0301te\u0301 the and of to " * 20, "\x00\x01 the \x7f and \u200b of " * 20,
        "the #tag of words " * 40, "- the list of words that we have\n" * 30,
        "A line that says of the world more than ten words have to say...\n" * 9,
        "".join(f"Number {n} of these is what we have.\n\n\n\n" for n in range(30)),
        "a" * 5000, "the be to of and that have with " * 9, "\u2029".join(_PROSE * 3),
    ]  # fmt: skip
    made += ["\n".join(random.Random(n).choices([*_PROSE, "Menu", "", "More..."], k=25))
             for n in range(12)]  # fmt: skip
    return made
