"""Translation by language models that were not trained for it alone: a prompt, and the answer made clean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, wraps
from hashlib import sha256
from importlib.resources import files
from typing import ClassVar

from ...errors import InputError
from ...items import group_positions
from ..judges import Judge, open_judge
from ..judges.answers import drop_thoughts
from ..judges.journal import Journal
from ..judges.kept import SHARE, KeptJudge
from ..judges.messages import Message
from ..languages import name_language
from ..prompts import Wording, load_wording
from .pieces import Piece, join_pieces, puts_spaces, split_sentences, split_to_fit, translate_pieces
from .reading import FENCE, QUOTES

CHUNK = 1200  # characters that a model is shown at once

# What models say before a translation. Only with a word of translating in it, or as a line of its own: "Here is the
# list:" may be what the text says.
_OPENINGS = (
    r"[^\n:：]{0,60}\btranslat(?:ion|ed|es|e)\b[^\n:：]{0,40}[:：]",
    r"(?:sure|certainly|of course|here)\b[^\n:：]{0,80}[:：](?=\W{0,3}\n)",
    r"(?:译文|翻译|翻譯|перевод|traduction|traducción|übersetzung|tradução|ترجمه|الترجمة)\s{0,2}[:：]",
)


@cache
def prompt_judge(factory: Callable[..., Judge]) -> Callable[..., PromptedTranslator]:
    """What opens a translator, from what opens a judge, with its options."""

    @wraps(factory)
    def open_prompted(checkpoint: str, **options: object) -> PromptedTranslator:
        return PromptedTranslator(open_judge(factory, checkpoint, options))

    return open_prompted


class PromptedTranslator:
    """A judge that is asked for translations; greedy, in pieces of at most 1,200 characters of whole sentences.

    A model without a chat template is asked line by line, and reads on from `Russian:`. What goes wrong is counted:
    `empty` answers, `unreadable` ones (not one letter in them), `cut_answers` that found no end.
    """

    sources: frozenset[str] | None = None
    targets: frozenset[str] | None = None
    appetite = 64_000  # characters

    def __init__(self, judge: Judge) -> None:
        if "generate" not in judge.can:
            able = ", ".join(sorted(judge.can))
            raise InputError(f"{judge.name} writes no text and cannot translate (it can: {able})")
        self.judge = judge
        self.name = judge.name
        self.revision = judge.revision
        self._own: Counter[str] = Counter()

    def keep_in(self, journal: Journal) -> PromptedTranslator:
        """The same translator, with the answers of its judge kept in a journal as they come."""
        everything = SHARE * self.judge.appetite  # what is translated at once is little, and not to be divided further
        return PromptedTranslator(KeptJudge(self.judge, journal, everything))

    @property
    def usage(self) -> Counter[str]:
        return self.judge.usage + self._own

    @property
    def fingerprint(self) -> str:
        words = "".join(_load_request(known).template for known in (True, False))
        return f"{self.judge.fingerprint}/{sha256(f'{words}{CHUNK}'.encode()).hexdigest()[:8]}"

    def translate(self, texts: Sequence[str], sources: Sequence[str | None], to: str) -> list[str]:
        def cut(text: str, source: str | None) -> list[str]:
            sentences = split_sentences(text)
            parts = [part for each in sentences for part in split_to_fit(each, lambda part: len(part) <= CHUNK)]
            return list(join_pieces(parts, CHUNK, lines=self.judge.chats))

        return translate_pieces(texts, sources, to, cut, lambda pieces: self._translate(pieces, to), self._own)

    def _translate(self, pieces: Sequence[Piece], to: str) -> list[str]:
        translated = [""] * len(pieces)
        fits = getattr(self.judge, "longest_answer", None)
        wanted = [_longest_answer(text, source) for text, source in pieces]
        limits = [each if fits is None else min(each, fits) for each in wanted]
        stop = () if self.judge.chats else ("\n",)
        for most, rows in sorted(group_positions(limits).items(), reverse=True):
            prompts = [word_request(*pieces[row], to) for row in rows]
            answers = self.judge.generate(prompts, max_new_tokens=most, stop=stop)
            for row, answer in zip(rows, answers, strict=True):
                translated[row] = text = clean_answer(answer.text, pieces[row][0], name_language(to))
                self._own["cut_answers"] += not answer.ended
                self._own["empty"] += not text
                if text and not any(map(str.isalpha, text)):
                    self._own["unreadable"] += 1
                    translated[row] = ""
        return translated


def word_request(text: str, source: str | None, to: str) -> Message:
    """The request to translate, with the languages by their English names; in a chat template if the model has one."""
    values = {"source": name_language(source or to), "target": name_language(to), "text": text}
    return _load_request(source is not None).fill(values)


class TranslationWording(Wording):
    """A wording of the request to translate {text} from {source} to {target}."""

    placeholders: ClassVar = {"template": ("source", "target", "text"), "system": ("source", "target")}


@cache
def _load_request(known: bool) -> TranslationWording:
    name = "translate" if known else "translate-unknown"
    return load_wording(TranslationWording, name, files(__package__))


def clean_answer(answer: str, text: str, target: str) -> str:
    """What an answer says as the translation of `text` into the language named `target`.

    Without thoughts, a fence, an opening (`Translation:`, `Here is the translation:`), quotes that the text did not
    have, and, for a text of one line, all but the first paragraph. Never empty unless there is nothing but a thought.
    """
    words = drop_thoughts(answer).strip()
    if fenced := FENCE.search(words):
        words = fenced[1].strip() or words
    opening = _opening(target).match(words)
    if opening and not _opening(target).match(text.strip()):
        words = words[opening.end() :].strip() or words
    if "\n" not in text.strip():
        words = " ".join(words.partition("\n\n" if "\n\n" in words else "\n")[0].split()) or words
    for begins, ends in QUOTES:
        quoted = len(words) > 2 and words.startswith(begins) and words.endswith(ends)
        if quoted and begins not in words[1:-1] and not text.strip().startswith(tuple(q[0] for q in QUOTES)):
            words = words[1:-1].strip() or words
            break
    return words


@lru_cache(maxsize=256)
def _opening(target: str) -> re.Pattern[str]:
    ways = "|".join((*_OPENINGS, rf"{re.escape(target)}\s{{0,2}}[:：]"))
    return re.compile(rf"[*_#\s]{{0,4}}(?:{ways})[*_\s]{{0,8}}", re.IGNORECASE)


def _longest_answer(text: str, source: str | None) -> int:
    """How many tokens a translation may have: one a character, more from scripts with a word in two characters."""
    weight = 1 if source is None or puts_spaces(source) else 2
    return 1 << (64 + weight * len(text) - 1).bit_length()
