"""Codes of languages: what is one, what is none, and what stored ones mean."""

from __future__ import annotations

import pytest
from crosslens.errors import InputError
from crosslens.media.language_codes import find_language, parse_language
from stand_ins.table import table


@table("code", ["und", "mul", "mis", "zxx", "UND", "und-Latn", "und_Latn", " und "])
def test_codes_of_no_language_suggest_no_other(code: str) -> None:
    with pytest.raises(InputError, match="unknown language") as refused:
        parse_language(code)
    assert "did you mean" not in str(refused.value)
    assert "leave it out" in str(refused.value)


@table("text", ["xx-yy-zz", "\ud800", "a\0b", "a" * 100_000, "🎈", "-", "en--us", "(" * 3000])
def test_what_is_no_language_is_one_short_line(text: str) -> None:
    with pytest.raises(InputError, match="unknown language") as refused:
        parse_language(text)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


def test_stored_languages_mean_codes_or_none() -> None:
    assert [find_language(each) for each in ("en", "eng", "zh-CN", "xx-yy-zz", "", "und", None)] == [
        "eng", "eng", "zho", None, None, None, None,
    ]  # fmt: skip
