"""Forms of one word that full text finds by each other: case, accents, compositions, scripts, and long words."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from crosslens.errors import SpecMismatch
from crosslens.indexes.base import Index
from crosslens.indexes.registry import create_index, open_index
from crosslens.indexes.storage.analysis import ANALYSIS, analyse
from crosslens.indexes.storage.fulltext import GROUPS, choose_group
from crosslens.items import SEAL, Item
from hypothesis import given
from hypothesis import strategies as st
from stand_ins.cheap_encoder import Cheap

LONG = (
    "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz",  # 63 letters
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
)

# language, a form in the document, a form in the query, and whether the document is found
FORMS = [
    ("tur", "İstanbul'un", "istanbul", True),
    ("tur", "İstanbul'un", "İSTANBUL", True),
    ("tur", "İstanbul’un", "İstanbul", True),
    ("tur", "İSTANBUL", "istanbul", True),
    ("tur", "istanbul", "i\u0307stanbul", True),
    ("tur", "I\u0307stanbul", "istanbul", True),
    ("tur", "ISPARTA", "ısparta", True),
    ("tur", "Isparta", "ISPARTA", True),
    ("tur", "Kadıköy'de", "KADIKÖY", True),
    ("tur", "Kadıköy", "Kadikoy", True),
    ("tur", "DİYARBAKIR", "diyarbakır", True),
    ("tur", "diyarbakır", "DİYARBAKIR", True),
    ("tur", "İstanbulʼun", "istanbul", True),
    ("tur", "kuş", "balık", False),
    ("aze", "İstanbul", "istanbul", True),
    ("aze", "Bakı", "BAKI", True),
    ("aze", "BAKI", "bakı", True),
    ("aze", "İlham", "ilham", True),
    ("aze", "ŞƏKİ", "şəki", True),
    ("deu", "Straße", "STRASSE", True),
    ("deu", "STRAẞE", "straße", True),
    ("deu", "STRASSE", "Straße", True),
    ("deu", "Straße", "Strasse", True),
    ("deu", "Müller", "MÜLLER", True),
    ("deu", "MU\u0308LLER", "müller", True),
    ("deu", "Müller", "Muller", True),
    ("deu", "Müller", "Mueller", True),
    ("deu", LONG[0], LONG[0].lower(), True),
    ("deu", LONG[0], LONG[0].upper(), True),
    ("deu", LONG[1], LONG[1], True),
    ("deu", "Donau\u00addampf\u00adschiff", "Donaudampfschiff", True),
    ("deu", "Auf\u200clage", "Auflage", True),
    ("deu", "ﬂiegen", "fliegen", True),
    ("deu", "schon", "Haus", False),
    ("deu", "Müller", "Möller", False),
    ("ell", "Αθήνα", "ΑΘΗΝΑ", True),
    ("ell", "ΑΘΗΝΑ", "αθήνα", True),
    ("ell", "ΟΔΟΣ", "οδός", True),
    ("ell", "οδός", "ΟΔΟΣ", True),
    ("ell", "οδοσ", "οδός", True),
    ("ell", "Ἀθῆναι", "Αθήναι", True),
    ("ell", "παϊδάκια", "ΠΑΪΔΑΚΙΑ", True),
    ("ell", "Α\u0301θηνα", "Άθηνα", True),
    ("ell", "ᾠδή", "ωδή", True),
    ("ell", "οδός", "Αθήνα", False),
    ("grc", "Ἀθῆναι", "ΑΘΗΝΑΙ", True),
    ("grc", "λόγος", "ΛΟΓΟΣ", True),
    ("eng", "Ｎｏｋｉａ　３３１０", "nokia", True),
    ("eng", "Nokia", "ｎｏｋｉａ", True),
    ("eng", "the students’ books", "student", True),
    ("eng", "the studentʼs book", "student", True),
    ("eng", "résumé", "resume", True),
    ("eng", "resume", "résumé", True),
    ("eng", "co\u00adoperate", "cooperate", True),
    ("eng", "ﬁnance", "finance", True),
    ("eng", "naïve", "naive", True),
    ("eng", "https://example.com/a/very/long/path/" + "x" * 300 + "/end?query=lexical", "lexical", True),
    ("eng", "x" * 300, "x" * 300, True),
    ("eng", "a" * 5000 + "b", "A" * 5000 + "B", True),
    ("eng", "a\ufeffpple", "apple", True),
    ("eng", "a\u2060pple", "apple", True),
    ("eng", "apple\u200bpie", "apple", True),
    ("eng", "cat", "dog", False),
    ("eng", "O'Brien", "O’Brien", True),
    ("jpn", "Ｎｏｋｉａの携帯", "nokia", True),
    ("jpn", "ﾃﾚﾋﾞを見る", "テレビ", True),
    ("jpn", "テレビを見る", "ﾃﾚﾋﾞ", True),
    ("jpn", "か\u3099くせい", "がくせい", True),
    ("zho", "ＮＯＫＩＡ手机", "Nokia", True),
    ("zho", "訪問example.com網站", "example", True),
    ("zho", "北京大学", "北京", True),
    ("zho", "北京", "上海", False),
    ("ara", "أحمد", "احمد", True),
    ("ara", "احمد", "أحمد", True),
    ("ara", "إسلام", "اسلام", True),
    ("ara", "آمال", "امال", True),
    ("ara", "ٱلرحمن", "الرحمن", True),
    ("ara", "مدرسة", "مدرسه", True),
    ("ara", "مدرسه", "مدرسة", True),
    ("ara", "موسى", "موسي", True),
    ("ara", "موسي", "موسى", True),
    ("ara", "مَدْرَسَةٌ", "مدرسة", True),
    ("ara", "مدرسة", "مَدْرَسَةٌ", True),
    ("ara", "مـــدرسة", "مدرسة", True),
    ("ara", "كتاب", "کتاب", True),
    ("ara", "یوسف", "يوسف", True),
    ("ara", "عام ١٩٨٤", "1984", True),
    ("ara", "عام 1984", "١٩٨٤", True),
    ("ara", "ﷲ", "الله", True),
    ("ara", "ﻣﺪﺭﺳﺔ", "مدرسة", True),
    ("ara", "رحمٰن", "رحمن", True),
    ("ara", "ڪتاب", "كتاب", True),
    ("ara", "كتاب", "مدرسة", False),
    ("fas", "کتاب\u200cها", "كتاب", True),
    ("fas", "كتابهاي", "کتابهای", True),
    ("fas", "می\u200cخواهم", "می خواهم", True),
    ("fas", "می\u200cخواهم", "میخواهم", True),
    ("fas", "میخواهم", "می\u200cخواهم", True),
    ("fas", "سال ۱۳۹۹", "1399", True),
    ("fas", "سال 1399", "١٣٩٩", True),
    ("fas", "خانهٔ", "خانه", True),
    ("fas", "خانۀ", "خانه", True),
    ("fas", "آب", "اب", True),
    ("fas", "مسئول", "مسیول", True),
    ("urd", "ہندوستان", "هندوستان", True),
    ("urd", "پاکستانی", "پاكستاني", True),
    ("ckb", "زمانەکە", "زمانه\u200cکه", True),
    ("rus", "ёлка", "елка", True),
    ("rus", "елка", "Ёлка", True),
    ("rus", "ЁЛКИ", "ёлка", True),
    ("rus", "за\u0301мок", "замок", True),
    ("rus", "и\u0306од", "йод", True),
    ("rus", "достопримечательностями", "достопримечательность", True),
    ("rus", "рентгеноэлектрокардиографического", "рентгеноэлектрокардиографический", True),
    ("rus", "мир", "дом", False),
    ("bel", "ёлка", "елка", True),
    ("ukr", "п'ять", "п’ять", True),
    ("ukr", "пʼять", "п'ять", True),
    ("ukr", "ЇЖАК", "їжак", True),
    ("ukr", "і\u0308жак", "їжак", True),
    ("vie", "Tiếng Việt", "tiếng việt", True),
    ("vie", "Tiếng Việt", "TIẾNG VIỆT", True),
    ("vie", "Tie\u0302\u0301ng", "tiếng", True),
    ("vie", "Đường", "đường", True),
    ("vie", "Đường", "duong", True),
    ("vie", "hoà", "hòa", True),
    ("tha", "ดื่มน้ำสะอาด", "น้ำ", True),
    ("tha", "ดื่มน้\u0e4dา", "น้ำ", True),
    ("tha", "ดื่มน\u0e4d้า", "น้ำ", True),
    ("tha", "ปี ๒๕๖๓", "2563", True),
    ("tha", "ดื่ม\u200bน้ำ", "น้ำ", True),
    ("tha", "ดื่มน้ำ", "ประเทศ", False),
    ("tha", "ฉันรักแมวและหมา", "แมว", True),
    ("tha", "ฉันรักแมวและหมา", "หมา", True),
    ("lao", "ນ້ຳ", "ນ້\u0ecdາ", True),
    ("hin", "हिन्दी", "हिंदी", True),
    ("hin", "हिंदी", "हिन्दी", True),
    ("hin", "ज\u093cरूरत", "जरूरत", True),
    ("hin", "\u095bरूरत", "ज\u093cरूरत", True),
    ("hin", "चाँद", "चांद", True),
    ("hin", "सन् २०२०", "2020", True),
    ("hin", "क्\u200dष", "क्ष", True),
    ("ben", "বাংলা", "বাংলা", True),
    ("ben", "হয\u09bc", "হয\u09bc", True),
    ("tam", "கொடி", "க\u0bc6\u0bbeடி", True),
    ("tam", "ம\u0bbeணவர்களுக்குரியவைகளிலிருந்தும்", "ம\u0bbeணவர்களுக்குரியவைகளிலிருந்தும்", True),
    ("heb", "שָׁלוֹם", "שלום", True),
    ("heb", "שלום", "שָׁלוֹם", True),
    ("heb", "בית־ספר", "ספר", True),
    ("heb", "צה״ל", 'צה"ל', True),
    ("kor", "한국어", "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165", True),
    ("fra", "l'œuvre", "oeuvre", True),
    ("fra", "l’oeuvre", "œuvre", True),
    ("fra", "lʼœuvre", "ŒUVRE", True),
    ("fra", "aujourd’hui", "aujourd'hui", True),
    ("fra", "ÉLÈVES", "élève", True),
    ("fra", "élève", "eleve", True),
    ("fra", "E\u0301le\u0300ve", "élève", True),
    ("ron", "știință", "ştiinţe", True),
    ("ron", "ştiinţă", "științe", True),
    ("nld", "ĳsberg", "ijsberg", True),
    ("pol", "Łódź", "lodz", True),
    ("pol", "ŁÓDŹ", "łódź", True),
    ("dan", "smørrebrød", "SMØRREBRØD", True),
    ("swe", "A\u030angström", "ångström", True),
    ("spa", "MAÑANA", "mañana", True),
    ("spa", "man\u0303ana", "mañana", True),
    ("spa", "año", "mano", False),
    ("hun", "TŰZOLTÓ", "tűzoltó", True),
    ("fin", "JÄRVI", "järvi", True),
    ("hye", "և", "եւ", True),
    ("kat", "ᲡᲐᲥᲐᲠᲗᲕᲔᲚᲝ", "საქართველო", True),
    ("yor", "ọ\u0300rọ\u0300", "oro", True),
    ("uzb", "oʻzbek", "o'zbek", True),
    ("uzb", "o‘zbek", "oʻzbek", True),
    ("khm", "ខ្ញុំស្រឡាញ់ឆ្មា", "ឆ្មា", True),
    ("mya", "ကျွန်တော် ကြောင်ချစ်တယ်", "ကြောင်", True),
]


@pytest.fixture(scope="module")
def forms() -> Index:
    index = create_index("memory://")
    index.add(Item(f"d{n}", document, lang=lang) for n, (lang, document, _, _) in enumerate(FORMS))
    return index


def test_a_word_is_found_by_its_other_forms(forms: Index) -> None:
    wrong = []
    for lang in dict.fromkeys(lang for lang, *_ in FORMS):
        rows = [row for row, (each, *_) in enumerate(FORMS) if each == lang]
        asked = [Item(f"d{row}", FORMS[row][2], lang=lang) for row in rows]
        run = forms.search(asked, len(FORMS), mode="lexical", where={"lang": lang})
        for row in rows:
            _, document, query, found = FORMS[row]
            right = any(hit.id == f"d{row}" for hit in run[f"d{row}"]) == found
            if found and choose_group(lang) == "ngram":  # fragments find much more: these are the same letters, too
                right &= _join_letters(query) in _join_letters(document)
            wrong += [] if right else [FORMS[row]]
    assert not wrong


def _join_letters(text: str) -> str:
    return "".join(analyse(text, "ngram").casefold().split())


NAMES = [  # in scripts and languages of which full text stores fragments
    ("aze", "Bakı İçərişəhər", "BAKI"),
    ("aze", "İlham", "ilham"),
    ("vie", "Đường Tiếng", "DUONG"),
    ("fas", "كتاب", "کتاب"),
    ("fas", "سال ۱۳۹۹", "1399"),
    ("ukr", "п’ять", "П'ЯТЬ"),
    ("hin", "हिन्दी किताबें", "किताबें"),
    ("heb", "שָׁלוֹם", "שלום"),
    ("grc", "λόγος", "ΛΟΓΟΣ"),
    ("yor", "ọ̀rọ̀", "oro"),
    ("swa", "Straße", "STRASSE"),
]


def test_a_whole_word_in_fragments_is_found_from_another_language() -> None:
    for lang, document, query in NAMES:
        index = create_index("memory://")
        index.add([Item("a", document, lang=lang), Item("b", "qqq", lang="eng")])
        run = index.search([Item(asked, query, lang=asked) for asked in ("eng", "tur", "zho")], 5, mode="lexical")
        assert [[hit.id for hit in hits] for _, hits in run] == [["a"]] * 3, document


# Letters and marks that take part in what analysis does.
PARTS = "aiIıİ\u0307\u0301'’eéßςΣᾠώёе\u0308يیكک\u200c\u0640ةهन्तम\u093cँ\u0e4d\u0e32\u0e49น\u0e33\u3099か読む字\u00ad\u200b1٣.:_가"


@given(st.text(max_size=12) | st.text(PARTS, max_size=8), st.sampled_from(GROUPS))
def test_analysis_changes_nothing_twice(text: str, group: str) -> None:
    once = analyse(text, group)
    assert analyse(once, group) == once


@given(st.text(max_size=12) | st.text(PARTS, max_size=8), st.sampled_from(GROUPS))
def test_composed_and_decomposed_are_analysed_alike(text: str, group: str) -> None:
    assert analyse(unicodedata.normalize("NFD", text), group) == analyse(unicodedata.normalize("NFC", text), group)


def test_an_index_is_asked_by_the_analysis_that_made_it(tmp_path: Path) -> None:
    new = create_index(tmp_path / "new")
    new.add([Item("a", "İstanbul'un " + LONG[0], lang="tur")])
    assert json.loads((tmp_path / "new" / "crosslens.json").read_text("utf-8"))["analysis"] == ANALYSIS
    new.card.analysis += 1
    new.storage.save()
    with pytest.raises(SpecMismatch, match="update crosslens or make the index again"):
        open_index(tmp_path / "new")
    # What an earlier version made: its words are asked for as it would have done, those that are added as well.
    old = create_index(tmp_path / "old")
    old.card.analysis = 1
    old.storage.save()
    old.add([Item("a", "İstanbul güzel", lang="tur"), Item("b", "كتاب", lang="fas")])
    card = tmp_path / "old" / "crosslens.json"
    stored = json.loads(card.read_text("utf-8"))
    assert stored.pop("analysis") == 1
    del stored[SEAL]
    card.write_text(json.dumps(stored))
    again = open_index(tmp_path / "old")
    assert again.card.analysis == 1
    assert again.fingerprint == old.fingerprint
    again.add([Item("c", LONG[0], lang="deu"), Item("d", "İstanbul güzel", lang="tur")])

    def find(query: str, lang: str) -> set[str]:
        return {hit.id for hit in again.search([Item("q", query, lang=lang)], 9, mode="lexical")["q"]}

    assert find("İstanbul", "tur") == find("güzel", "tur") == {"a", "d"}
    assert find("istanbul", "tur") == find(LONG[0], "deu") == set()
    assert find("کتاب", "fas") == {"b"}


def test_languages_that_an_earlier_version_stored_as_given_are_found_by_their_codes(tmp_path: Path) -> None:
    texts = ["The cats were playing in the gardens", "A dog slept", "Two birds sang", "Rain fell all night"]
    given = [Item(f"{lang}{n}", text, lang="eng") for lang in ("en", "zho", "xx-yy") for n, text in enumerate(texts)]
    current = create_index(tmp_path / "current")
    current.add([replace(item, lang="zho" if item.id[0] == "z" else "eng") for item in given[:8]], Cheap())
    for item in given:
        object.__setattr__(item, "lang", item.id[:-1])  # as earlier versions took it
    earlier = create_index(tmp_path / "earlier")
    earlier.add(given[:8], Cheap())
    again = open_index(tmp_path / "earlier", encoders=Cheap())
    assert again.card.langs == {"en": 4, "zho": 4}
    assert again.langs == {"eng": 4, "zho": 4}
    assert not list(again.storage.tables.find_changed())
    query = Item("q", texts[0], lang="en")
    assert again.search([query], 8) == current.search([query], 8)
    for mode in ("dense", "lexical", "hybrid"):
        for lang in ("en", "eng"):
            hits = again.search([query], 8, mode=mode, where={"lang": lang})["q"]
            assert "en0" in {hit.id for hit in hits} <= {item.id for item in given[:4]}
    earlier.add(given, Cheap())
    assert [item.lang for item in earlier.get(["en0", "zho0", "xx-yy0"])] == ["eng", "zho", None]
    assert {hit.id for hit in earlier.search([query], 12, where={"lang": "xx-yy"})["q"]} == {
        f"xx-yy{n}" for n in range(4)
    }
    # Added again, they come under their codes.
    assert earlier.add([replace(item, lang="eng") for item in given[:4]], Cheap()) == 4
    assert earlier.langs == {"eng": 4, "xx-yy": 4, "zho": 4}
