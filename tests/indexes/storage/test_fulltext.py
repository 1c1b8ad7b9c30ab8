"""Full text by language: other forms of words, names in other languages, BM25."""

from __future__ import annotations

import math
import unicodedata

import pytest
from crosslens.indexes.base import Index
from crosslens.indexes.registry import create_index
from crosslens.indexes.storage import fulltext
from crosslens.items import Item
from stand_ins.table import table

# Students reading old books in a library; heavy rain in the mountains; a team that won its match.
TEXTS = {
    "eng": [
        "Three students were reading old books in the library.",
        "Heavy rains fell on the mountains all night.",
        "The team won its last match and the players celebrated.",
    ],
    "rus": [
        "Студенты читают старые книги в библиотеке.",
        "Всю ночь в горах шёл сильный дождь.",
        "Команда выиграла последний матч, и игроки праздновали победу.",
    ],
    "fas": [
        "دانشجویان در کتابخانه کتاب‌های قدیمی می‌خوانند.",
        "تمام شب در کوهستان باران شدیدی بارید.",
        "تیم آخرین مسابقه را برد و بازیکنان جشن گرفتند.",
    ],
    "zho": ["学生们在图书馆里阅读旧书。", "山区整夜下着大雨。", "球队赢得了最后一场比赛，球员们庆祝胜利。"],
    "jpn": [
        "学生たちは図書館で古い本を読んでいます。",
        "一晩中、山では激しい雨が降った。",
        "チームは最後の試合に勝ち、選手たちは喜んだ。",
    ],
    "tha": ["นักเรียนกำลังอ่านหนังสือเก่าในห้องสมุด", "ฝนตกหนักบนภูเขาตลอดทั้งคืน", "ทีมชนะการแข่งขันนัดสุดท้ายและผู้เล่นฉลองกัน"],
    "ara": [
        "يقرأ الطلاب الكتب القديمة في المكتبة.",
        "هطلت أمطار غزيرة على الجبال طوال الليل.",
        "فاز الفريق في المباراة الأخيرة واحتفل اللاعبون.",
    ],
    "deu": [
        "Die Studenten lasen in der Bibliothek alte Bücher.",
        "Die ganze Nacht regnete es heftig in den Bergen.",
        "Die Mannschaft gewann das letzte Spiel, und die Spieler feierten.",
    ],
    "spa": [
        "Los estudiantes leían libros antiguos en la biblioteca.",
        "Llovió con fuerza en las montañas toda la noche.",
        "El equipo ganó el último partido y los jugadores celebraron.",
    ],
    "hin": [
        "विद्यार्थी पुस्तकालय में पुरानी किताबें पढ़ रहे थे।",
        "पहाड़ों पर रात भर तेज़ बारिश हुई।",
        "टीम ने आख़िरी मैच जीता और खिलाड़ियों ने जश्न मनाया।",
    ],
    "swa": [
        "Wanafunzi walikuwa wakisoma vitabu vya zamani katika maktaba.",
        "Mvua kubwa ilinyesha milimani usiku kucha.",
        "Timu ilishinda mechi ya mwisho na wachezaji walisherehekea.",
    ],
    "fin": [
        "Opiskelijat lukivat vanhoja kirjoja kirjastossa.",
        "Vuorilla satoi rankasti koko yön.",
        "Joukkue voitti viimeisen ottelun, ja pelaajat juhlivat.",
    ],
    "tur": [
        "Öğrenciler kütüphanede eski kitapları okuyordu.",
        "Dağlarda bütün gece şiddetli yağmur yağdı.",
        "Takım son maçı kazandı ve oyuncular kutladı.",
    ],
    "kor": [
        "학생들이 도서관에서 오래된 책을 읽고 있었다.",
        "산에는 밤새 큰비가 내렸다.",
        "그 팀은 마지막 경기에서 이겼고 선수들은 축하했다.",
    ],
    "tam": [
        "மாணவர்கள் நூலகத்தில் பழைய புத்தகங்களைப் படித்தார்கள்.",
        "மலைகளில் இரவு முழுவதும் பலத்த மழை பெய்தது.",
        "அணி கடைசி போட்டியில் வென்றது; வீரர்கள் கொண்டாடினர்.",
    ],
    "ell": [
        "Οι φοιτητές διάβαζαν παλιά βιβλία στη βιβλιοθήκη.",
        "Όλη τη νύχτα έβρεχε δυνατά στα βουνά.",
        "Η ομάδα κέρδισε τον τελευταίο αγώνα και οι παίκτες γιόρτασαν.",
    ],
}
# language, query in other forms than the document has, and which of its texts it asks for
INFLECTED = [
    ("eng", "student's book", 0),
    ("eng", "mountain raining", 1),
    ("eng", "teams matches", 2),
    ("rus", "студенту нужна книга", 0),
    ("rus", "дожди на горе", 1),
    ("rus", "игрока команды", 2),
    ("fas", "کتاب دانشجو", 0),
    ("fas", "باران‌های کوه", 1),
    ("fas", "بازیکن تیم‌ها", 2),
    ("zho", "一个学生读的书", 0),
    ("zho", "足球比赛的胜利", 2),
    ("jpn", "学生が本を読む", 0),
    ("jpn", "雨が降る山", 1),
    ("jpn", "試合に勝つ選手", 2),
    ("tha", "หนังสือของนักเรียน", 0),
    ("tha", "ภูเขาที่มีฝน", 1),
    ("tha", "ผู้เล่นของทีม", 2),
    ("ara", "كتاب الطالب في مكتبة", 0),
    ("ara", "لاعب الفريقين", 2),
    ("deu", "Buch eines Studenten", 0),
    ("deu", "regnen Berg", 1),
    ("deu", "Spielern der Mannschaften", 2),
    ("spa", "el libro del estudiante", 0),
    ("spa", "lloviendo en la montaña", 1),
    ("spa", "jugador de equipos", 2),
    ("hin", "विद्यार्थियों की किताब", 0),
    ("hin", "पहाड़ की बारिश", 1),
    ("hin", "खिलाड़ी और टीमें", 2),
    ("swa", "mwanafunzi anasoma kitabu", 0),
    ("swa", "mlima na mvua", 1),
    ("swa", "mchezaji wa timu", 2),
    ("fin", "opiskelijan kirja", 0),
    ("fin", "pelaajien joukkueet", 2),
    ("tur", "öğrencinin kitabı", 0),
    ("tur", "dağın yağmurları", 1),
    ("tur", "oyuncunun takımı", 2),
    ("kor", "학생의 책", 0),
    ("kor", "산의 큰비", 1),
    ("kor", "선수들의 경기", 2),
    ("tam", "மாணவன் புத்தகம்", 0),
    ("tam", "மலை மழையில்", 1),
    ("tam", "வீரர் அணிகள்", 2),
    ("ell", "το βιβλίο του φοιτητή", 0),
    ("ell", "το βουνό και η βροχή έβρεξε", 1),
    ("ell", "παίκτης της ομάδας", 2),
]


@pytest.fixture(scope="module")
def texts() -> Index:
    """The texts above and five that name a Nokia 3310, with full text alone."""
    index = create_index("memory://")
    index.add(
        [
            *(Item(f"{lang}{n}", text, lang=lang) for lang, held in TEXTS.items() for n, text in enumerate(held)),
            Item("nokia-deu", "Das Nokia 3310 kam im Jahr 2000 auf den Markt.", lang="deu"),
            Item("nokia-fas", "گوشی Nokia 3310 در سال 2000 عرضه شد.", lang="fas"),
            Item("nokia-swa", "Simu ya Nokia 3310 ilitolewa mwaka 2000.", lang="swa"),
            Item("nokia-zho", "诺基亚 Nokia 3310 手机于2000年上市。", lang="zho"),
            Item("nokia-rus", "Телефон Nokia 3310 вышел в 2000 году.", lang="rus"),
        ]
    )
    return index


@table(("lang", "query", "text"), INFLECTED)
def test_full_text_finds_other_forms_of_words(texts: Index, lang: str, query: str, text: int) -> None:
    found = texts.search([Item("q", query, lang=lang)], 5, mode="lexical")["q"]
    assert found[0].id == f"{lang}{text}"


@table("lang", ["eng", "spa", "ara", "jpn", "hin", None])
def test_full_text_finds_names_and_numbers_in_other_languages(texts: Index, lang: str | None) -> None:
    found = texts.search([Item("q", "Nokia 3310", lang=lang)], 10, mode="lexical")["q"]
    assert {hit.id for hit in found[:5]} == {f"nokia-{each}" for each in ("deu", "fas", "swa", "zho", "rus")}


def test_fragments_of_words_find_nothing_in_other_languages(texts: Index) -> None:
    """Swahili is indexed by fragments of two and three letters, which any Latin text shares."""
    found = texts.search([Item("q", "a library of the teams and their ships", lang="eng")], 50, mode="lexical")
    assert not [hit.id for hit in found["q"] if hit.id.startswith("swa")]
    assert found["q"][0].id in ("eng0", "eng2")


@table(
    "query",
    [
        '"',
        "'",
        "(",
        ") OR (",
        "AND",
        "NOT books",
        "* : ^ ~ \\",
        "books~2",
        "text:books",
        "+-",
        "🎈",
        "a" * 5000,
        "\x00",
    ],
)
@table("lang", ["eng", "zho", "fas", None])
def test_full_text_queries_are_plain_words(texts: Index, query: str, lang: str | None) -> None:
    found = texts.search([Item("q", query, lang=lang)], 5, mode="lexical")["q"]
    if lang == "eng" and "books" in query:
        assert found[0].id == "eng0"
    if query in ('"', "+-", "🎈"):
        assert found == ()


def test_full_text_scores_are_bm25_with_the_constants_in_manifests() -> None:
    texts = {"a": "cat cat dog", "b": "cat bird", "c": "dog bird bird river stone", "d": "cat cat cat river"}
    index = create_index("memory://")
    index.add(Item(id, text, lang="eng") for id, text in texts.items())
    words = {id: text.split() for id, text in texts.items()}
    average = sum(map(len, words.values())) / len(words)

    def bm25(word: str, document: list[str]) -> float:
        holding = sum(word in each for each in words.values())
        idf = math.log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
        times = document.count(word)
        room = fulltext.K1 * (1 - fulltext.B + fulltext.B * len(document) / average)
        return idf * times * (fulltext.K1 + 1) / (times + room)

    run = index.retriever("lexical", 10)([Item("q", "cat river", lang="eng")])
    assert {hit.id for hit in run["q"]} == set(texts)
    for hit in run["q"]:
        assert hit.score == pytest.approx(sum(bm25(word, words[hit.id]) for word in ("cat", "river")), rel=1e-5)
    assert run.manifest.records[0].stage == "lexical (BM25, k1=1.2, b=0.75)"


def test_stop_words_alone_find_nothing(texts: Index) -> None:
    assert texts.search([Item("q", "of the", lang="eng")], 5, mode="lexical", where={"lang": "eng"})["q"] == ()


def test_composed_and_decomposed_letters_are_the_same(texts: Index) -> None:
    for lang, query, text in [("spa", "montaña", 1), ("tur", "dağların", 1), ("fin", "öitä yötä koko", 1)]:
        for form in ("NFC", "NFD"):
            asked = Item("q", unicodedata.normalize(form, query), lang=lang)
            assert texts.search([asked], 1, mode="lexical")["q"][0].id == f"{lang}{text}"


def test_groups_of_languages() -> None:
    assert [fulltext.choose_group(each) for each in ("eng", "nob", "zho", "tha", "fas", "hin", None, "xx")] == [
        "eng", "nor", "icu", "icu", "ngram", "ngram", "ngram", "ngram",
    ]  # fmt: skip
    assert len(set(fulltext.COLUMNS)) == len(fulltext.GROUPS)
