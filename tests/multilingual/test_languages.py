"""languages.py: codes in and out, writing direction, and identification that never touches the network."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crosslens.demo.collection import HERE
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual import languages
from crosslens.multilingual.languages import fill_languages, find_direction, identify, name_language, parse_language
from stand_ins.table import table

QUERIES = {  # one to three words, as people search
    "eng": ["climate change", "train station", "old bridge repair"],
    "deu": ["erneuerbare Energie", "roter Apfel", "alte Brücke"],
    "fra": ["changement climatique", "énergie solaire", "pont ancien"],
    "spa": ["cambio climático", "manzana roja", "puente viejo"],
    "por": ["mudança climática", "maçã vermelha", "estação de trem"],
    "rus": ["изменение климата", "солнечная энергия", "старый мост"],
    "zho": ["气候变化", "火车站", "旧桥维修"],
    "jpn": ["気候変動", "赤いリンゴ", "古い橋の修理"],
    "kor": ["기후 변화", "기차역", "오래된 다리"],
    "ara": ["تغير المناخ", "الطاقة الشمسية", "تفاحة حمراء"],
    "fas": ["تغییر اقلیم", "انرژی خورشیدی", "ایستگاه قطار"],
    "urd": ["موسمیاتی تبدیلی", "ریلوے اسٹیشن", "سرخ سیب"],
    "hin": ["जलवायु परिवर्तन", "सौर ऊर्जा", "लाल सेब"],
    "swa": ["nishati ya jua", "kituo cha treni", "daraja la zamani"],
    "tur": ["iklim değişikliği", "kırmızı elma", "eski köprü"],
    "tha": ["พลังงานแสงอาทิตย์", "สถานีรถไฟ", "วัคซีน"],
    "vie": ["biến đổi khí hậu", "năng lượng mặt trời", "cây cầu cũ"],
    "ell": ["κλιματική αλλαγή", "κόκκινο μήλο", "παλιά γέφυρα"],
    "heb": ["שינוי אקלים", "תחנת רכבת", "גשר ישן"],
}
SENTENCES = {
    "eng": "The mayor opened a new library near the river.",
    "deu": "Forscher fanden letztes Jahr Wasser auf dem Mond.",
    "fra": "Le maire a inauguré une nouvelle bibliothèque près de la rivière.",
    "spa": "Los científicos encontraron agua en la luna el año pasado.",
    "ita": "Gli scienziati hanno trovato acqua sulla luna.",
    "por": "O prefeito inaugurou uma nova biblioteca perto do rio.",
    "rus": "Учёные нашли воду на Луне в прошлом году.",
    "ukr": "Мер відкрив нову бібліотеку біля річки.",
    "zho": "科学家去年在月球上发现了水。",
    "jpn": "科学者は昨年、月で水を発見した。",
    "kor": "시장은 강 근처에 새 도서관을 열었다.",
    "ara": "افتتح رئيس البلدية مكتبة جديدة قرب النهر.",
    "fas": "دانشمندان سال گذشته روی ماه آب پیدا کردند.",
    "urd": "سائنسدانوں نے پچھلے سال چاند پر پانی دریافت کیا۔",
    "hin": "वैज्ञानिकों ने पिछले साल चंद्रमा पर पानी पाया।",
    "ben": "বিজ্ঞানীরা গত বছর চাঁদে জল পেয়েছেন।",
    "swa": "Wanasayansi walipata maji mwezini mwaka jana.",
    "tur": "Belediye başkanı nehrin yanında yeni bir kütüphane açtı.",
    "vie": "Thị trưởng đã mở một thư viện mới gần sông.",
    "tha": "นักวิทยาศาสตร์พบน้ำบนดวงจันทร์เมื่อปีที่แล้ว",
    "pol": "Burmistrz otworzył nową bibliotekę nad rzeką.",
    "nld": "Wetenschappers vonden vorig jaar water op de maan.",
    "ell": "Ο δήμαρχος άνοιξε μια νέα βιβλιοθήκη κοντά στο ποτάμι.",
    "heb": "מדענים מצאו מים על הירח בשנה שעברה.",
}


@table(
    ("code", "spellings"),
    [
        ("zho", "zho zh cmn chi zh-CN zh_tw ZH-hant Chinese 中文 Mandarin"),
        ("fas", "fas fa per pes Persian farsi فارسی"),
        ("rus", "rus ru RUS ru-RU russian русский"),
        ("eng", "eng en en-US en_GB English"),
        ("ara", "ara ar arb ar-EG Arabic العربية"),
        ("swa", "swa sw swh Swahili Kiswahili"),
        ("deu", "deu de ger German Deutsch"),
        ("por", "pt pt_BR Portuguese"),
        ("nor", "no nb nob nor Norwegian"),
        ("msa", "ms zsm msa"),
        ("tgl", "tl tgl fil Tagalog"),
        ("heb", "he iw heb"),
        ("hin", "hi hin Hindi हिन्दी"),
        ("jpn", "ja jpn 日本語"),
        ("yue", "yue Cantonese"),
        ("ind", "id ind Indonesian"),
    ],
)
def test_iso_takes_what_people_write(code, spellings):
    assert {parse_language(spelling) for spelling in spellings.split()} == {code}
    assert parse_language(f"  {code}\n") == code
    assert parse_language(parse_language(code)) == code


@table("bad", ["", " ", "xx", "zzz", "a", "1", "und", "mul", "qaa", "zxx", "Elvish", "no language", "x-foo", "en-"])
def test_unknown_languages_are_one_line(bad):
    with pytest.raises(InputError, match="unknown language") as told:
        parse_language(bad)
    assert repr(bad) in str(told.value)
    assert "\n" not in str(told.value)


def test_an_unknown_language_comes_with_the_nearest():
    with pytest.raises(InputError, match=r"did you mean deu \(German\)"):
        parse_language("Germn")


def test_names_and_direction():
    assert [name_language(code) for code in ("fas", "zho", "sw", "eng")] == ["Persian", "Chinese", "Swahili", "English"]
    right_to_left = [
        "ara",
        "fas",
        "heb",
        "urd",
        "pus",
        "uig",
        "ckb",
        "yid",
        "snd",
        "div",
        "ar-EG",
        "uz-Arab",
        "Persian",
    ]
    assert {find_direction(code) for code in right_to_left} == {"rtl"}
    assert {find_direction(code) for code in ["eng", "zho", "rus", "hin", "jpn", "tha", "amh", "uzb", "ar-Latn"]} == {
        "ltr"
    }
    with pytest.raises(InputError):
        find_direction("nowhere")


def test_sentences_in_24_languages():
    assert dict(zip(SENTENCES, identify(list(SENTENCES.values())), strict=True)) == {lang: lang for lang in SENTENCES}


def test_short_queries_are_nearly_always_right_or_unsure():
    gold = [(lang, query) for lang, queries in QUERIES.items() for query in queries]
    found = identify([query for _, query in gold])
    answered = [(lang, guess) for (lang, _), guess in zip(gold, found, strict=True) if guess]
    wrong = [(lang, guess) for lang, guess in answered if lang != guess]
    assert len(answered) >= 0.75 * len(gold)
    assert len(wrong) <= 1, wrong


def test_the_demo_collections_texts():
    rows = [json.loads(line) for line in (HERE / "docs.jsonl").read_text("utf-8").splitlines()]
    found = identify([row["text"] for row in rows])
    assert [row["id"] for row, lang in zip(rows, found, strict=True) if lang != row["lang"]] == []


def test_characters_show_whether_a_text_without_kana_is_chinese_or_japanese():
    assert identify(["发现", "発見", "铁路", "駅", "图书馆", "電気鉄道の駅"]) == ["zho", "jpn"] * 3


@table(
    "nothing",
    ["", "   ", "12345 !!!", "😀😀", "https://example.org/the/old/bridge", "someone@example.org", "ᏣᎳᎩ", "\ud800"],
)
def test_no_language_is_claimed_for(nothing):
    assert identify([nothing]) == [None]


def test_odd_texts():
    long = "These are the words of a long text. " * 30_000
    found = identify(["\ud800 hello there my good friend", long, "WHO IS THE PRESIDENT OF FRANCE",
                      "Новый роман «War and Peace» вышел в России"])  # fmt: skip
    assert found == ["eng", "eng", "eng", "rus"]


def test_a_link_inside_a_text_does_not_count_and_costs_nothing():
    assert identify(["请看https://example.org/about/the/old/bridge 科学家去年在月球上发现了水。"]) == ["zho"]
    assert identify(["请看https://example.org/about/the/old/bridge科学家去年在月球上发现了水。"]) == ["zho"]
    begun = time.thread_time()
    identify(["a" * 100_000, "水" * 100_000, "a." * 50_000 + "@"])
    assert time.thread_time() - begun < 5


def test_every_label_of_the_identifier_has_a_code_and_a_script_that_we_recognise():
    labels = languages.load_identifier().labels
    assert len(labels) > 130
    known = set(languages.SCRIPTS.values())
    for label, entry in labels.items():
        assert parse_language(entry.code) == entry.code
        assert entry.scripts & known, label


def test_with_languages_streams_keeps_order_and_fills_only_what_lacks():
    image = Item("3", image=b"x")
    given = Item("2", text=SENTENCES["rus"], lang="eng")  # what the collection says is not questioned
    unclear = Item("4", text="12345")
    taken = 0

    def stream():
        nonlocal taken
        for item in [Item("1", text=SENTENCES["fas"]), given, image, unclear] * 10:
            taken += 1
            yield item

    filled = fill_languages(stream(), window=4)
    first = next(filled)
    assert (first.id, first.lang, taken) == ("1", "fas", 4)
    rest = list(filled)
    assert len(rest) == 39
    assert rest[:3] == [given, image, unclear]
    assert rest[0] is given


def test_identification_opens_no_connection(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    languages.load_identifier.cache_clear()
    assert identify(["Forscher fanden Wasser auf dem Mond."]) == ["deu"]


def test_importing_languages_imports_no_model_and_no_network_library():
    heavy = "('torch', 'py3langid', 'requests', 'langcodes')"
    code = f"import sys, crosslens.multilingual.languages; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path("/"))
    assert done.stdout.strip() == "[]"
