# ruff: noqa: E501
"""Rules that were made for English do not throw other languages away."""

import pytest

from llm.document import Document
from llm.stages import c4_lines, fineweb, gopher_quality, gopher_repetition, minhash
from llm.text.word_breaks import words
from llm.workloads import prepare_data

# The first sentences of the Universal Declaration of Human Rights.
TEXTS = {
    "en": "All human beings are born free and equal in dignity and rights. They are "
          "endowed with reason and conscience and have to act in a spirit of kinship.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit "
          "Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit "
          "begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils "
          "sont doués de raison et doivent agir les uns envers les autres dans un esprit "
          "de fraternité.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, "
          "dotados como están de razón y conciencia, deben comportarse con los demás.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они "
          "наделены разумом и совестью и должны поступать в отношении друг друга в духе "
          "братства.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve "
          "vicdana sahiptirler ve birbirlerine karşı bir kardeşlik zihniyeti için "
          "hareket ederler.",
    "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا "
          "وعليهم أن يعامل بعضهم بعضا من هذا بروح الإخاء إلى كل إنسان.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता "
          "प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें "
          "भाईचारे के भाव से बर्ताव करना चाहिए।",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 이성 및 "
          "양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền. "
          "Mọi con người đều được tạo hoá ban cho lý trí và lương tâm của mình.",
    "hy": "Բոլոր մարդիկ ծնվում են ազատ ու հավասար՝ իրենց արժանապատվությամբ և իրավունքներով։ "
          "Նրանք օժտված են բանականությամբ ու խղճով և պետք է միմյանց եղբայրաբար վերաբերվեն։",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ "
          "ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ",
}  # fmt: skip
NUMBERS = {"zh": "一二三四五六七八九十", "ja": "一二三四五六七八九十"}


def text_of(language):
    """Twelve lines that differ, of about thirty words each."""
    lines = []
    for n in range(12):
        mark = NUMBERS.get(language, "abcdefghijkl")[n % 10]
        lines.append(TEXTS[language].replace(" ", f" {mark * 3} ", n % 3) or "")
        lines[-1] = f"{mark}{n}{mark} " * (n % 4) + lines[-1]
    return "\n".join(lines)


def document(language, said):
    text = text_of(language)
    meta = {"language": language} if said else {}
    return Document("x", text, "s", "g", "prose", len(text.encode()), meta)


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("stage", [gopher_quality, fineweb])
def test_prose_of_any_language_is_kept(stage, language, said):
    made = stage.make()
    if stage is fineweb:  # these lines are alike on purpose
        made = stage.make(most_repeated_characters=1.0)
    assert made.decide(made.score(document(language, said))) == ""


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("language", TEXTS)
def test_its_lines_stay(language, said):
    (made,) = c4_lines.make().apply(document(language, said))
    assert len(made.text.splitlines()) == 12
    menu = document(language, said)
    menu = Document(**{**vars(menu), "text": menu.text + "\nMenu\nHome"})
    if language != "th":  # whose sentences end in no mark
        (made,) = c4_lines.make().apply(menu)
        assert len(made.text.splitlines()) == 12


@pytest.mark.parametrize("language", ["sw", "xx", "ta", "zh"])
def test_without_a_list_the_rule_is_skipped(language):
    text = "maneno mengi yaliyoandikwa hapa kuhusu mambo mbalimbali ya nchi " * 12
    some = Document("x", text, "s", "g", "prose", 1, {"language": language})
    made = gopher_quality.make()
    scores = made.score(some)
    assert scores["listed"] == (language == "sw")
    assert made.decide(scores) == (
        "fewer than 2 stop words" if scores["listed"] else ""
    )


@pytest.mark.parametrize(
    ("language", "text", "reason"),
    [
        ("en", "der die und " * 30, "fewer than 2 stop words"),
        ("de", "buy cheap shoes now here " * 30, "fewer than 2 stop words"),
        ("", "buy cheap shoes now here " * 30, "fewer than 2 stop words"),
        ("", "## кот ## кот " * 30, "more than 0.1 hash signs a word"),
    ],
)
def test_rules_still_drop(language, text, reason):
    meta = {"language": language} if language else {}
    some = Document("x", text, "s", "g", "prose", len(text), meta)
    made = gopher_quality.make()
    assert made.decide(made.score(some)) == reason


@pytest.mark.parametrize("language", ["zh", "ja", "th"])
def test_repetition_is_found_without_spaces(language):
    # The most frequent run counts though it occurs once: a large share of a short text.
    made = gopher_repetition.make(top_2_gram=0, top_3_gram=0, top_4_gram=0)
    good = Document("x", TEXTS[language], "s", "g", "prose", 1)
    assert made.decide(made.score(good)) == ""
    bad = Document("x", TEXTS[language][:20] * 40, "s", "g", "prose", 1)
    assert "repeated" in made.decide(made.score(bad))


@pytest.mark.parametrize("language", TEXTS)
def test_near_copies_of_any_script_are_near(language):
    """A few letters changed in a long text; and other texts stay far."""
    text = text_of(language)
    near = text.replace(TEXTS[language][10:12], "ox", 1)
    one, other = (set(minhash.shingles(t, 5).tolist()) for t in (text, near))
    assert len(one & other) / len(one | other) > 0.9 and one != other
    far = set(minhash.shingles(text_of("en" if language != "en" else "de"), 5).tolist())
    assert len(one & far) / len(one | far) < 0.1


@pytest.mark.parametrize(
    "letters", ["漢字", "かな", "ไท", "ພາສ", "ភាស", "ꆈꌠ", "ꦗꦮ", "々〇"]
)
def test_letters_without_spaces_are_words(letters):
    assert words(letters) == tuple(letters)


def test_the_console_says_what_share_was_dropped():
    dropped = {
        "fewer than 2 stop words": {"documents": 2}, "empty": {"documents": 7},
    }  # fmt: skip
    count = {"name": "fineweb", "documents_in": 40, "dropped": dropped}
    assert prepare_data._dropped(count) == (
        "fineweb drops 9 of 40 documents (22.5%): empty: 7; fewer than 2 stop words: 2"
    )
    assert prepare_data._dropped(count | {"dropped": {}}) == ""
