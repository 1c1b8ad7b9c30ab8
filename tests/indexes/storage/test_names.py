"""Names in a query, and hybrid search that finds documents in other languages by them."""

from __future__ import annotations

from crosslens.indexes.registry import create_index
from crosslens.indexes.storage.names import MOST, extract_names
from crosslens.items import Item
from stand_ins.index_cases import Hashing
from stand_ins.table import table


@table(
    ("text", "names"),
    [
        ("how to use x264 and IMAP", ["x264", "IMAP"]),
        ("explain javahelp.ini, C++ and 3 files", ["javahelp", "ini"]),
        ("How do I open files in Inkscape?", ["Inkscape"]),
        ("Show/Hide Slide", []),
        ("the cat sleeps.", []),
        ("mutt", ["mutt"]),
        ("как работает mutt", ["mutt"]),
        ("如何使用mutt和VLOOKUP", ["mutt", "VLOOKUP"]),
        ("ＳＵＭＩＦＳ　関数 sumifs", ["SUMIFS"]),
        (" ".join(f"x{n}" for n in range(10, 30)), [f"x{n}" for n in range(10, 10 + MOST)]),
    ],
)
def test_names_are_codes_numbers_and_words_that_stand_out(text: str, names: list[str]) -> None:
    assert extract_names(text) == names


def test_a_rare_name_finds_documents_in_other_languages_and_leaves_languages_at_their_places() -> None:
    texts = {
        "rus": "Функция {} складывает числа", "zho": "{} 函数将数字相加", "kor": "{} 함수는 숫자를 더합니다",
        "eng": "The function {} adds numbers",
    }  # fmt: skip
    docs = [
        Item(f"{lang}{n}", text.format("SUMIFS" if n == 7 else f"F{n}X"), lang=lang)
        for lang, text in texts.items()
        for n in range(60)
    ]
    index = create_index("memory://")
    index.add(docs, Hashing("dense"))

    def search(text: str, mode: str, **more: object) -> list[str]:
        return [hit.id for hit in index.search([Item("q", text, lang="eng", **more)], 240, mode=mode)["q"]]

    dense, hybrid = (search("sumifs", mode) for mode in ("dense", "hybrid"))
    assert [doc[:3] for doc in hybrid] == [doc[:3] for doc in dense]
    for lang in ("rus", "zho", "kor"):
        before, after = ([doc for doc in ranking if doc[:3] == lang] for ranking in (dense, hybrid))
        assert after.index(f"{lang}7") < before.index(f"{lang}7")
        assert [doc for doc in after if doc != f"{lang}7"] == [doc for doc in before if doc != f"{lang}7"]
    assert "rus7" not in search("sumifs", "hybrid", meta={"excluded_ids": ["rus7"]})
    for text in ("numbers to add to it", "XLOOKUP"):
        mine, all_dense = ([doc for doc in search(text, mode) if doc[:3] != "eng"] for mode in ("hybrid", "dense"))
        assert mine == all_dense
