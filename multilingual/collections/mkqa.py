"""MKQA (Longpre, Lu and Daiber, TACL 2021): 10,000 questions in 26 languages, judged by their answers in passages."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import regex

from ...errors import InputError, check_known
from ...files import read_lines
from ...items import Item
from ...rows.fields import FileRow
from ...runs import Qrels
from ..languages import match_language, parse_language
from .published import DatasetFiles, PublishedCollection, Reading
from .records import Rows, read_json_lines

LANGUAGES = (
    "ar", "da", "de", "en", "es", "fi", "fr", "he", "hu", "it", "ja", "km", "ko", "ms", "nl", "no", "pl", "pt",
    "ru", "sv", "th", "tr", "vi", "zh_cn", "zh_hk", "zh_tw",
)  # fmt: skip
UNSPACED = frozenset(["ja", "km", "th", "zh_cn", "zh_hk", "zh_tw"])  # MKQA's own list
# What a token is, see `Answers`. The last two letters of the scripts without spaces belong to several scripts.
_SIGN = r"[\p{L}&&[\p{Han}\p{Hiragana}\p{Katakana}\p{Khmer}\p{Thai}ー〆]]"
_OTHER = r"[^\p{L}\p{N}\p{M}\p{Z}\p{C}]"
_TOKEN = regex.compile(rf"[\p{{L}}\p{{N}}\p{{M}}]+|{_OTHER}")
_UNSPACED_TOKEN = regex.compile(
    rf"{_SIGN}\p{{M}}*|[[\p{{L}}\p{{N}}]--{_SIGN}][[\p{{L}}\p{{N}}\p{{M}}]--{_SIGN}]*|\p{{M}}+|{_OTHER}", regex.V1
)

# Answers that a passage can hold. The others are judgements about the question (unanswerable), yes or no, or the
# mark that only a paragraph would do.
TEXTUAL = frozenset(["date", "entity", "number", "number_with_unit", "short_phrase"])
OTHER = frozenset(["binary", "long_answer", "unanswerable"])


class Mkqa(PublishedCollection):
    """`mkqa:DIR?lang=zh_cn[&docs=PATH][&docs_lang=en]`: the questions of mkqa.jsonl[.gz] in a language.

    MKQA has no passages: `docs` names some (relative to DIR, or to where you are): JSON lines `id, title, text`
    (BEIR's `_id` and MIRACL's `docid` are taken too), a directory of such files, or DPR's psgs_w100.tsv (`id TAB
    text TAB title`), plain or gz. As in the evaluations of mContriever and BGE-M3, a passage is relevant (grade 1)
    when it holds one of the answers, or aliases, in the language of the passages (`docs_lang`), and questions are
    left out that have none but long, binary or no answers. `Answers` says what holding is; it looks in the text,
    as DPR and mContriever do, with `titles` in title and text, as BGE-M3's does.

    A question that no passage answers has no judgement. The literature's Recall@k is Success@k over all
    questions, those too; over the judged ones it is higher by queries / judged queries.
    """

    questions = 10_000
    topic_files = ("mkqa.jsonl.gz", "mkqa.jsonl")
    usage = "write mkqa:DIR?lang=zh_cn&docs=PATH, where DIR holds mkqa.jsonl.gz and PATH is a file of passages"

    def __init__(
        self, where: str, *, reading: Reading, lang: str, docs: str | None = None,
        docs_lang: str = "en", titles: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(where, reading)
        self._lang = match_language(lang, LANGUAGES, "language of MKQA")
        self._docs_lang = match_language(docs_lang, LANGUAGES, "language of MKQA")
        self._docs, self._titles = docs, titles
        self._code = parse_language(self._docs_lang)
        self.name = f"mkqa-{self._lang}" + ("" if self._docs_lang == "en" else f"-{self._docs_lang}")
        self.langs = frozenset([self._code])

    def qrels(self) -> Qrels:
        """Passages that hold an answer; the passages are read through once for it, and only once."""
        return self._judged

    def read_query(self, record: FileRow) -> Item | None:
        id = record.read_id("example_id")
        answers = self._read_answers(record, id)
        if not answers:
            return None
        queries = record["queries"] if isinstance(record.get("queries"), dict) else {}
        text = FileRow(queries).require_text(self._lang, "question", id, f"wording in {self._lang}")
        return Item(id, text, None, parse_language(self._lang), {"answers": answers})

    def document_rows(self) -> Rows:
        if self._docs is None:
            raise InputError(
                f"{self.name} has questions and no passages of its own: name some, docs=PATH "
                "(JSON lines `id, title, text`, or DPR's psgs_w100.tsv, plain or gz)"
            )
        places = [root / self._docs for root in (self.files.root, Path()) if root is not None]
        path = next((place for place in places if place.exists()), None)
        if path is None:
            raise InputError(f"there is no file docs={self._docs}, neither in {self.files} nor from here")
        if path.is_dir():
            return read_json_lines(*DatasetFiles(str(path), usage=self.usage).get_all("*.jsonl.gz", "*.jsonl"))
        return _read_dpr(path) if path.name.removesuffix(".gz").endswith(".tsv") else read_json_lines(path)

    def read_document(self, record: FileRow) -> Item:
        id = record.read_id(next((key for key in ("id", "_id", "docid") if key in record), "id"))
        record.require_text("text", "passage", id)
        return Item(id, record.join_texts("title", "text"), None, self._code, record.read_texts("title"))

    def _read_answers(self, record: FileRow, id: str) -> list[str]:
        """The answers of a question in the passages' language, its aliases after each; none if it is left out."""
        answers = record.get("answers")
        given = answers.get(self._docs_lang) if isinstance(answers, dict) else None
        if not isinstance(given, list) or not all(isinstance(answer, dict) for answer in given):
            raise InputError(f"question {id!r} has no list of answers in {self._docs_lang}")
        found: list[str] = []
        for answer in given:
            if (kind := answer.get("type")) in OTHER:
                continue
            check_known(str(kind), (*TEXTUAL, *OTHER), "type of answer")
            aliases = answer.get("aliases") or []
            if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
                raise InputError(f"question {id!r}: aliases must be a list of texts")
            found += [text for text in (FileRow(answer).read_text("text"), *aliases) if text and text.strip()]
        return list(dict.fromkeys(found))

    @cached_property
    def _judged(self) -> dict[str, dict[str, int]]:
        strings = {item.id: item.meta["answers"] for item in self.queries()}
        answers = Answers(strings, unspaced=self._docs_lang in UNSPACED)  # type: ignore[arg-type]
        judged: dict[str, dict[str, int]] = {}
        for item in self.docs():
            text = item.text or ""
            if not self._titles and (title := item.meta.get("title")):
                text = text.removeprefix(f"{title}\n")
            for question in answers.within(text):
                judged.setdefault(question, {})[item.id] = 1
        return judged


class Answers:
    """Which questions a text answers: those one of whose answers stands in it as consecutive tokens.

    The rule is DPR's (Karpukhin et al., EMNLP 2020): text and answers in Unicode's form NFD and lower case; a
    token is a run of letters, digits and marks, or one character of any other kind but space and control. In
    languages `unspaced` a letter of a script without spaces (Chinese, Japanese, Thai, Khmer) with its marks is a
    token, as MKQA's own evaluation has it: a run would be a whole clause. An answer without tokens is in no text.

    All answers are one tree of tokens, so a text costs its length and hardly more with more answers.
    """

    def __init__(self, answers: dict[str, Iterable[str]], *, unspaced: bool = False) -> None:
        self._find_tokens = (_UNSPACED_TOKEN if unspaced else _TOKEN).findall
        self._root: dict[str, Any] = {}
        for question, strings in answers.items():
            for string in strings:
                node = self._root
                for token in (tokens := self.tokens(string)):
                    node = node.setdefault(token, {})
                if tokens:  # white space is no token, so this key is none either
                    node.setdefault(" ", set()).add(question)

    def tokens(self, text: str) -> list[str]:
        """What is compared, in the order of the text."""
        return self._find_tokens(unicodedata.normalize("NFD", text).lower())

    def within(self, text: str) -> set[str]:
        """The questions that have an answer in the text."""
        tokens = self.tokens(text)
        found: set[str] = set()
        for start in range(len(tokens)):
            node: Any = self._root
            for place in range(start, len(tokens)):
                node = node.get(tokens[place])
                if node is None:
                    break
                found |= node.get(" ", frozenset())
        return found


def _read_dpr(path: Path) -> Rows:
    """The rows of DPR's file of passages: id, text, title by tabs, quoted as in CSV; a first line may name them."""
    columns = ["id", "text", "title"]
    number = 0
    try:
        rows = csv.reader(read_lines(path), delimiter="\t")
        for row in rows:
            first, number = number + 1, rows.line_num
            if number > first:
                raise InputError(f"{path}:{first}: a quotation mark is not closed in its line")
            if first == 1 and sorted(row) == sorted(columns):
                columns = row
            elif row and len(row) != len(columns):
                raise InputError(f"{path}:{first}: not `{' TAB '.join(columns)}` but {len(row)} columns")
            elif row:
                yield f"{path}:{first}", FileRow(zip(columns, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}:{number + 1}: {error}") from None
