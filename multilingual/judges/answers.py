"""Reading what a model said: labels and rankings in free text, whatever else stands there.

What went wrong is counted by kind, at most once an answer and kind. Where nothing could be read, exactly one of
`empty`, `refused`, `unclosed_thought` (it never came to an answer) and `unreadable` is counted. Beside these:
`out_of_range` (an identifier that nothing has), `duplicate` and `missing` identifiers of a ranking, and
`foreign_digits` (numerals of another script, which are read all the same).

Both functions take time linear in the text.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple


def read_ranking(text: str, labels: Sequence[str], count: Counter[str]) -> list[int]:
    """Positions of the labels in the order that the text ranks them: always a permutation of range(len(labels)).

    Identifiers in square brackets win over named ones ("Passage B", and what is listed after it), these over bare
    ones; the first mention of each counts. Labels that are left out follow in the order given. Reasoning in <think>
    is not searched, and of <answer> only the inside. The article "A" and the pronoun "I" are not identifiers.
    """
    answer = _open_answer(text)
    names = _names(tuple(labels))
    found = names.bracketed(answer.text)
    if not _valid(found):
        mentions = names.mentions(answer.text)
        named = _follow(mentions, [mention for mention in mentions if mention.named])
        if _valid(named):
            found = named
        elif bare := _bare(answer, mentions):
            found = found + bare if _valid(bare) else found
    read = [mention.place for mention in found if mention.place is not None]
    order = list(dict.fromkeys(read))
    kinds = {"out_of_range"} if len(read) < len(found) else set()
    if any(mention.foreign for mention in found if mention.place is not None):
        kinds.add("foreign_digits")
    if not order:
        kinds.add(answer.fault)
    else:
        kinds |= {"duplicate"} if len(order) < len(read) else set()
        kinds |= {"missing"} if len(order) < len(labels) else set()
    count.update(kinds)
    return order + [place for place in range(len(labels)) if place not in set(order)]


def read_label(text: str, labels: Sequence[str], count: Counter[str], *, after: str = "") -> int | None:
    """Position of the label that the text decides for; None, counted, where it names none.

    The last explicit verdict ("final score: 2", "the answer is no", "B is more relevant") wins, then a label that
    the text opens with, then the last in square brackets or followed by `after`, then the last mention. A verdict
    that is none of the labels ("final score: 7") decides nothing.
    """
    answer = _open_answer(text)
    names = _names(tuple(labels))
    verdict = _find_verdict(answer, names, after)
    kinds: set[str] = set()
    if verdict is None or verdict.place is None:
        kinds = {answer.fault} | ({"out_of_range"} if verdict else set())
    elif verdict.foreign:
        kinds = {"foreign_digits"}
    count.update(kinds)
    return verdict.place if verdict else None


def drop_thoughts(text: str) -> str:
    """What follows the last <think> of an answer; nothing where that finds no end."""
    *_, slash, after = ("/", *THOUGHTS.split(text))  # without a tag all is after a thought
    return after if slash else ""


class _Mention(NamedTuple):
    """An identifier in the text; `place` is its label's, None where no label is so called."""

    place: int | None
    start: int
    end: int
    foreign: bool = False
    named: bool = False  # a word such as "Passage" stands before it
    chained: bool = False  # it follows the mention before it, with a comma, a ">" or the like between
    prose: bool = False  # more likely a word or a quantity than an identifier


class _Answer(NamedTuple):
    """The part of an answer that is searched, whether it refuses, and what it counts as where nothing is read."""

    text: str
    refuses: bool
    fault: str


NOTHING_READ = frozenset({"empty", "refused", "unclosed_thought", "unreadable"})
THOUGHTS = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
ANSWER_BEGINS = re.compile("<answer>", re.IGNORECASE)
ANSWER_ENDS = re.compile("</answer>", re.IGNORECASE)
# Full-width forms, and brackets of other scripts, as ASCII; digits are left, to be counted where they are foreign.
PLAIN: dict[int, str] = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if not chr(code).isdecimal()},
    **{ord(each): "[" for each in "【〔〖「『［"},
    **{ord(each): "]" for each in "】〕〗」』］"},
    ord("’"): "'",
}

VOCABULARY = tomllib.loads((files(__package__) / "answers.toml").read_text("utf-8"))
ANY = {key: f"(?:{'|'.join(words)})" for key, words in VOCABULARY.items() if isinstance(words, list)}
NOUNS = ANY["nouns"]


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


REFUSALS = _compile(ANY["refusals"])
READ = 1000  # characters in which a refusal is looked for: it opens the answer
NOUN = _compile(NOUNS)
JOINING = _compile(rf"{NOUNS}|and|then")
NAMED = _compile(rf"(?<![A-Za-z\u00C0-\u04FF]){NOUNS}[\s#№:.\"'“”«»*_`(\[-]{{0,4}}")
# Between two identifiers of one list.
CHAIN = _compile(
    rf"[\"'”»*_`)\]]{{0,3}}[^\S\n]{{0,3}}{ANY['links']}(?:[^\S\n]{{0,2}}(?:and|then))?[^\S\n]{{0,3}}"
    rf"(?:{NOUNS}[^\S\n]{{0,2}})?[\"'“«*_`(\[]{{0,3}}"
)
ONE_LETTER_WORDS = frozenset("AIOEY")  # in English, Spanish, French, Italian, Portuguese
# After these words a capital "A" is an identifier, for no article stands before them.
AFTER_IDENTIFIER = re.compile(
    r"[^\S\n]+(?:is|was|has|are|and|or|then|over|than|beats?|comes?|ranks?|seems|does|contains|directly|answers|vs)\b"
)
WORD_AFTER = re.compile(r"[^\S\n]+[^\W\d_]{2}")
QUANTITY = _compile(rf"\s{{0,2}}(?:{NOUNS}|{ANY['counters']})")
ORDINAL = re.compile(r"^[^\S\n]*(\d{1,3})[.):][^\S\n]+\S", re.MULTILINE)
# What announces a verdict, and what may stand between that and the label.
VERDICTS = _compile(
    rf"{ANY['verdicts']}[\"'*_`]{{0,3}}\s{{0,3}}(?:{ANY['copulas']}\s{{0,3}}){{0,2}}"
    rf"(?:{NOUNS}\s{{0,2}})?[\[(\"'*_`“«#{{]{{0,4}}\s{{0,2}}"
)
BETTER = _compile(r"[\])\"'*_]{0,3}\s{1,3}(?:is|seems|appears|are)\s(?:\w{1,12}\s){0,2}?(?:more|most|better|best)\b")
NEGATED = _compile(r"(?:\bnot|n't|\bnever)\s{1,2}$")
FRACTION = re.compile(r"(?<!\d)(\d{1,9}),(\d{1,9})(?!\d)")
OF_A_SCALE = _compile(rf"{ANY['scale_before']}\s{{0,2}}$")
SCALE_AFTER = _compile(rf"\s{{0,2}}{ANY['scale_between']}\s{{0,2}}\d")
EDGE = r"A-Za-z0-9_\u00C0-\u024F"  # beside these a letter or a digit is part of a word; beside Han it is not


@dataclass(frozen=True, slots=True)
class _Names:
    """How labels are found in a text: numbers by their value, letters in any case, words as whole words."""

    kind: str
    places: dict[str, int]
    pattern: re.Pattern[str]

    def place(self, written: str) -> int | None:
        return self.places.get(str(int(written)) if self.kind == "number" else written.casefold())

    def could_be(self, written: str) -> bool:
        """Whether a word in brackets is an identifier, of a label or of none."""
        if self.kind == "number":
            return written.isdecimal() and len(written) <= 9
        return written.casefold() in self.places or (self.kind == "letter" and len(written) == 1 and written.isalpha())

    def bracketed(self, text: str) -> list[_Mention]:
        """The identifiers in square brackets that hold nothing else: [2], [Passage B], [3, 1, 2]."""
        found: list[_Mention] = []
        for inside in BRACKETS.finditer(text):
            if self.kind == "word":
                words = [(inside[1].strip(" \n\"'*"), *inside.span(1))]
            else:
                words = [(each[0], *each.span()) for each in WORDS.finditer(text, *inside.span(1))]
            words = [word for word in words if not NOUN.fullmatch(word[0])]
            if words and all(self.could_be(word) for word, *_ in words):
                found += [_Mention(self.place(word), start, end, _foreign(word)) for word, start, end in words]
        return found

    def mentions(self, text: str) -> list[_Mention]:
        """Every identifier of the text as it stands there, with what speaks for and against it."""
        starts = {each.end() for each in NAMED.finditer(text)}
        # Whether small letters are words: there are capitals, or more words than identifiers and what joins them.
        words = self.kind == "letter" and (
            any(each[0].isupper() and self.place(each[0]) is not None for each in self.pattern.finditer(text))
            or not all(len(each) == 1 or JOINING.fullmatch(each) for each in re.findall(r"[^\W\d_]+", text))
        )
        found: list[_Mention] = []
        for each in self.pattern.finditer(text):
            written = each[0]
            named = each.start() in starts
            before = found[-1].end if found else -100
            chained = each.start() - before <= 24 and _chains(text[before : each.start()])
            prose = False
            if self.kind == "letter":
                lower = written.islower()
                if words and lower and not named:
                    continue
                if written.upper() in ONE_LETTER_WORDS and not chained and not (named and not lower):
                    prose = bool(WORD_AFTER.match(text, each.end())) and not AFTER_IDENTIFIER.match(text, each.end())
            elif self.kind == "number":
                prose = not named and not chained and bool(QUANTITY.match(text, each.end()))
            elif NEGATED.search(text, max(0, each.start() - 8), each.start()):
                continue
            place = self.place(written.partition(".")[0] if self.kind == "number" else written)
            if chained:  # what a list goes on from is an identifier too
                found[-1] = found[-1]._replace(prose=False)
            found.append(_Mention(place, each.start(), each.end(), _foreign(written), named, chained, prose))
        return found


# The first bracket may have been opened for the model.
BRACKETS = re.compile(r"(?:\A|\[)([^\[\]]*)\]")
WORDS = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]+")


@lru_cache(maxsize=256)
def _names(labels: tuple[str, ...]) -> _Names:
    if all(label.isdecimal() for label in labels):
        places = {str(int(label)): place for place, label in enumerate(labels)}
        pattern = rf"(?<![{EDGE}\d])(?<!\d\.)\d{{1,9}}(?:\.0{{1,3}})?(?![{EDGE}\d%])(?!\.\d)"
        return _Names("number", places, re.compile(pattern))
    places = {}
    for place, label in enumerate(labels):
        places.setdefault(label.strip().casefold(), place)
    if all(len(label) == 1 and label.isascii() and label.isalpha() for label in labels):
        pattern = rf"(?<![{EDGE}])(?<![{EDGE}]')[A-Za-z](?![{EDGE}]|'[A-Za-z]|-[A-Za-z])"
        return _Names("letter", places, re.compile(pattern))
    for label in labels:
        for alias in VOCABULARY["aliases"].get(label, ()):
            places.setdefault(alias.casefold(), places[label.casefold()])
    for form in ("NFC", "NFD"):
        for written, place in list(places.items()):
            places.setdefault(unicodedata.normalize(form, written), place)
    longest = sorted(filter(None, places), key=len, reverse=True)
    # A word's vowel signs and accents are no letters to `\w`.
    marks = r"\u0300-\u036f\u064b-\u0652\u0900-\u0903\u093a-\u094f\u200c"
    pattern = rf"(?<![\w{marks}])(?:{'|'.join(map(re.escape, longest))})(?![\w{marks}])" if longest else r"(?!)"
    return _Names("word", places, re.compile(pattern, re.IGNORECASE))


def _open_answer(text: str) -> _Answer:
    """The answer without the model's reasoning; the inside of the last <answer> where there is one."""
    outside, *tagged = THOUGHTS.split(text)
    thinking = False
    for slash, after in zip(tagged[::2], tagged[1::2], strict=True):
        if slash and not thinking:
            outside = ""  # it began in the prompt, so all so far was thought
        thinking = not slash
        outside += "" if thinking else after
    ended = ANSWER_ENDS.split(outside)
    found = ANSWER_BEGINS.split(ended[-2] if len(ended) > 1 else ended[0])[-1].strip().translate(PLAIN)
    refuses = bool(REFUSALS.search(found, 0, READ))
    fault = "unclosed_thought" if thinking else "refused" if refuses else "unreadable" if found else "empty"
    return _Answer(found, refuses, fault)


def _bare(answer: _Answer, mentions: Sequence[_Mention]) -> list[_Mention]:
    """The identifiers that stand there by themselves; none that a refusal merely speaks of."""
    likely = [mention for mention in mentions if not mention.prose]
    ordinals = _ordinals(answer.text)
    listed = [mention for mention in likely if mention.start not in ordinals]
    likely = listed if _valid(listed) else likely
    return _follow(likely, []) if answer.refuses else likely


def _ordinals(text: str) -> set[int]:
    """Where the numbers of a numbered list stand: 1., 2., 3. at the beginnings of lines."""
    lines = list(ORDINAL.finditer(text))
    numbers = [int(line[1]) for line in lines]
    return {line.start(1) for line in lines} if numbers == list(range(1, len(numbers) + 1)) else set()


def _follow(mentions: Sequence[_Mention], roots: Sequence[_Mention]) -> list[_Mention]:
    """The roots and what lists go on from them; without roots, all lists of at least two."""
    wanted = {root.start for root in roots}
    found: list[_Mention] = []
    for before, mention in zip([None, *mentions], mentions, strict=False):
        if mention.start in wanted:
            found.append(mention)
        elif mention.chained and before is not None and (not roots or (found and found[-1] is before)):
            found += [before, mention] if not found or found[-1] is not before else [mention]
    return found


def _find_verdict(answer: _Answer, names: _Names, after: str) -> _Mention | None:
    """The mention that an answer decides for; its place is None where that is no label."""
    text = answer.text
    mentions = [mention for mention in names.mentions(text) if not mention.prose]
    if names.kind == "number":  # 2,5 is a fraction in half of Europe
        fractions = {place for each in FRACTION.finditer(text) for place in each.span(1) + each.span(2)}
        mentions = [mention for mention in mentions if mention.start not in fractions]
    by_start = {mention.start: mention for mention in mentions if not SCALE_AFTER.match(text, mention.end)}
    verdicts = [
        (bool(each["final"] or each["last"]), by_start[each.end()])
        for each in VERDICTS.finditer(text)
        if each.end() in by_start
    ]
    if names.kind == "letter":
        verdicts += [(False, mention) for mention in mentions if BETTER.match(text, mention.end)]
    if verdicts:
        return max(verdicts, key=lambda verdict: (verdict[0], verdict[1].start))[1]
    if names.kind == "number":
        ordinals = _ordinals(text)
        mentions = [
            mention
            for mention in by_start.values()
            if mention.start not in ordinals and not OF_A_SCALE.search(text, max(0, mention.start - 9), mention.start)
        ] or [mention for mention in mentions[:1] if not re.search(r"\w", text[: mention.start])]
    mentions = [mention for mention in mentions if mention.place is not None]
    if not mentions:
        return None
    first = mentions[0]
    if not re.search(r"\w", text[: first.start]) and (
        names.kind == "word" or not re.match(r"\s*\w", text[first.end : first.end + 8])
    ):
        return first
    bracketed = [mention for mention in names.bracketed(text) if mention.place is not None]
    if bracketed:
        return bracketed[-1]
    if after and (followed := [mention for mention in mentions if text.startswith(after, mention.end)]):
        return followed[-1]
    return None if answer.refuses else mentions[-1]


def _valid(mentions: Sequence[_Mention]) -> bool:
    return any(mention.place is not None for mention in mentions)


@lru_cache(maxsize=1024)
def _chains(between: str) -> bool:
    return CHAIN.fullmatch(between) is not None


def _foreign(written: str) -> bool:
    return not written.isascii() and written.replace(".", "").isdecimal()
