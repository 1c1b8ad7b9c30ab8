"""What a language model wrote, made fit to be searched with: only the text, in whole sentences, said once.

What went wrong is counted by kind, at most once an answer: `unclosed_thought` (it never came to an answer), `refused`,
`empty`, `unreadable` (not one letter in it) and `other_language` mean that nothing of the answer is used; `cut_answers`
(it found no end) and `repeated` (it said the same again) that what is left of it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ..judges.answers import REFUSALS, THOUGHTS, drop_thoughts
from ..judges.base import Completion
from ..languages import identify
from .pieces import split_sentences

# What nothing is used of, and what is used in part.
LOST = ("empty", "refused", "unclosed_thought", "unreadable", "other_language")
FAULTS = (*LOST, "cut_answers", "repeated")

FENCE = re.compile(r"```[\w-]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)
QUOTES = tuple((pair[0], pair[1]) for pair in ('""', "“”", "„“", "«»", "''", "‘’", "「」", "『』", "``"))
# "Sure, here is a passage:", "以下是...：" and labels of one's own, as "Passage:" or "**Ответ:**".
_OPENING = re.compile(
    r"\s*(?:[*_#>]{0,3}(?:sure|certainly|of course|okay|here(?:'s| is| are)|below is|the following is)\b"
    r"[^\n:：]{0,120}[:：]"
    r"|[^\n:：.!?。！？]{1,80}[:：][*_]{0,3}(?=\s*\n)"
    r"|(?:[-*•–]\s+|\d{1,2}[.)]\s+)?[*_#]{0,3}(?:passage|answer|query|question|keywords?"
    r"|search query|rewritten query|text|title"
    r"|отрывок|ответ|запрос|вопрос|ключевые слова|текст|заголовок|标题|段落|答案|回答|查询|问题|关键词|关键字|文本|文章"
    r"|título|titel|titre|عنوان|العنوان|タイトル|제목"
    r"|متن|پاسخ|پرسش|پرس‌وجو|کلیدواژه‌ها|المقطع|الإجابة|الجواب|السؤال|الاستعلام|الكلمات المفتاحية"
    r"|pasaje|respuesta|consulta|pregunta|palabras clave|textstelle|antwort|anfrage|frage|suchanfrage|stichwörter"
    r"|passage|réponse|requête|question|mots[- ]clés|答え|質問|検索語|キーワード|지문|답변|답|질문|검색어|키워드)"
    r"(?:[^\S\n]?\d{1,2})?[*_]{0,3}\s{0,2}[:：][*_]{0,3})\s*",
    re.IGNORECASE,
)
_MARKS = re.compile(r"(?m)^[^\S\n]{0,8}(?:#{1,6}[^\S\n]+|>[^\S\n]?|[-*•–][^\S\n]+|\(?\d{1,2}[.):、．][^\S\n]*(?=\D))")
_EMPHASIS = re.compile(r"(\*\*|__|`)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
_ENDS = re.compile(r"[.!?…。！？｡؟۔।][\"'”’»)\]」』）]*\s*\Z")
_COMMAS = re.compile(r"[,;，、；،؛\n]+")
# What manuals say of what cannot be done, where no model speaks of itself.
_NO_REFUSAL = re.compile("(?<![我们])(?:无法|無法)|できません|할 수 없|unable to", re.IGNORECASE)
REFUSES = 120  # characters at the beginning of an answer in which it refuses, if it does


def open_answer(answer: str, faults: Counter[str]) -> str:
    """What an answer says, without thoughts, fences, openings, quotes around it and Markdown; empty if nothing is left.

    The kind of what is lacking is counted.
    """
    text = drop_thoughts(answer).strip()
    if not text:
        faults["unclosed_thought" if THOUGHTS.search(answer) else "empty"] += 1
        return ""
    if any(not _NO_REFUSAL.match(text, each.start()) for each in REFUSALS.finditer(text, 0, REFUSES)):
        faults["refused"] += 1
        return ""
    if fenced := FENCE.search(text):
        text = fenced[1].strip()
    for _ in range(2):  # "Sure, here is the passage:" and then "Passage:"
        text = _OPENING.sub("", text, count=1) if _OPENING.match(text) else text
    text = strip_quotes(_EMPHASIS.sub(r"\2", _MARKS.sub("", text)).strip())
    if not any(map(str.isalpha, text)):
        faults["unreadable" if text else "empty"] += 1
        return ""
    return text


def strip_quotes(text: str) -> str:
    """A text without the one pair of quotes that stands around all of it."""
    for begins, ends in QUOTES:
        if len(text) > 2 and text.startswith(begins) and text.endswith(ends) and begins not in text[1:-1]:
            return text[1:-1].strip() or text
    return text


def read_prose(answer: Completion, faults: Counter[str]) -> str:
    """The sentences of an answer, each once; the last one only if it is whole, where others stand before it."""
    text = open_answer(answer.text, faults)
    sentences = [sentence for sentence in split_sentences(text) if sentence.strip()]
    if not answer.ended and text:
        faults["cut_answers"] += 1
        if len(sentences) > 1 and not _ENDS.search(sentences[-1]):
            sentences.pop()
    return "".join(_drop_repeated(sentences, faults)).strip()


def read_line(answer: Completion, faults: Counter[str]) -> str:
    """The first line of an answer, for it was asked for one."""
    text = open_answer(answer.text, faults)
    faults["cut_answers"] += bool(text) and not answer.ended and "\n" not in text
    return strip_quotes(text.partition("\n")[0].strip())


def read_entries(answer: Completion, faults: Counter[str]) -> list[str]:
    """The lines of an answer, each once, without numbers and bullets; the last one only if it is whole."""
    lines = open_answer(answer.text, faults).split("\n")
    return _keep_whole([strip_quotes(line.strip()) for line in lines], answer, faults)


def read_words(answer: Completion, faults: Counter[str]) -> list[str]:
    """The words that an answer lists, between commas or on lines, each once; the last only if it is whole."""
    words = [strip_quotes(word.strip(" \t.。")) for word in _COMMAS.split(open_answer(answer.text, faults))]
    return _keep_whole(words, answer, faults)


def is_in(text: str, lang: str) -> bool:
    """Whether a text is in the language, or too short or too mixed for it to be told."""
    (found,) = identify([text])
    return found in (None, lang)


def _keep_whole(parts: list[str], answer: Completion, faults: Counter[str]) -> list[str]:
    found = [part for part in parts if any(map(str.isalpha, part))]
    if not answer.ended and found:
        faults["cut_answers"] += 1
        found = found[:-1] or found
    return _drop_repeated(found, faults)


def _drop_repeated(parts: Sequence[str], faults: Counter[str]) -> list[str]:
    """Each part where it stands first: small models may say the same until they are cut."""
    once: dict[str, str] = {}
    for part in parts:
        once.setdefault(" ".join(part.split()).casefold(), part)
    faults["repeated"] += len(once) < len(parts)
    return list(once.values())
