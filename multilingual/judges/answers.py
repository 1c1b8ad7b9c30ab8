"""Reading what a model said: labels and rankings in free text, whatever else stands there.

What went wrong is counted by kind, at most once an answer and kind. Where nothing could be read, exactly one of
`empty`, `refused`, `unclosed_thought` (it never came to an answer) and `unreadable` is counted. Beside these:
`out_of_range` (an identifier that nothing has), `duplicate` and `missing` identifiers of a ranking, and
`foreign_digits` (numerals of another script, which are read all the same).

Both functions take time linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple


def read_ranking(text: str, labels: Sequence[str], count: Counter[str]) -> list[int]:
    """Positions of the labels in the order that the text ranks them: always a permutation of range(len(labels)).

    Identifiers in square brackets win over named ones ("Passage B", and what is listed after it), these over bare
    ones; the first mention of each counts. Labels that are left out follow in the order given. Reasoning in <think>
    is not searched, and of <answer> only the inside. The article "A" and the pronoun "I" are not identifiers.
    """
    said = _said(text)
    names = _names(tuple(labels))
    found = names.bracketed(said.text)
    if not _valid(found):
        mentions = names.mentions(said.text)
        named = _follow(mentions, [mention for mention in mentions if mention.named])
        if _valid(named):
            found = named
        elif bare := _bare(said.text, mentions):
            found = found + bare if _valid(bare) else found
    read = [mention.place for mention in found if mention.place is not None]
    order = list(dict.fromkeys(read))
    kinds = {"out_of_range"} if len(read) < len(found) else set()
    if any(mention.foreign for mention in found if mention.place is not None):
        kinds.add("foreign_digits")
    if not order:
        kinds.add(said.nothing)
    else:
        kinds |= {"duplicate"} if len(order) < len(read) else set()
        kinds |= {"missing"} if len(order) < len(labels) else set()
    count.update(kinds)
    return order + [place for place in range(len(labels)) if place not in set(order)]


def read_label(text: str, labels: Sequence[str], count: Counter[str], *, after: str = "") -> int | None:
    """Position of the label that the text settles on; None, counted, where it names none.

    The last explicit verdict ("final score: 2", "the answer is no", "B is more relevant") wins, then a label that
    the text opens with, then the last in square brackets or followed by `after`, then the last mention. A verdict
    that is none of the labels ("final score: 7") settles on nothing.
    """
    said = _said(text)
    names = _names(tuple(labels))
    settled = _settled(said, names, after)
    kinds: set[str] = set()
    if settled is None or settled.place is None:
        kinds = {said.nothing} | ({"out_of_range"} if settled else set())
    elif settled.foreign:
        kinds = {"foreign_digits"}
    count.update(kinds)
    return settled.place if settled else None


def drop_thoughts(text: str) -> str:
    """What follows the last <think> of an answer; nothing where that finds no end."""
    tags = [tag for tag in TAGS.finditer(text) if tag[2].casefold() != "answer"]
    if not tags:
        return text
    return text[tags[-1].end() :] if tags[-1][1] else ""


class _Mention(NamedTuple):
    """An identifier in the text; `place` is its label's, None where no label is so called."""

    place: int | None
    start: int
    end: int
    foreign: bool = False
    named: bool = False  # a word such as "Passage" stands before it
    chained: bool = False  # it follows the mention before it, with a comma, a ">" or the like between
    prose: bool = False  # more likely a word or a quantity than an identifier


class _Said(NamedTuple):
    """The part of an answer that is searched, whether it refuses, and what nothing in it counts as."""

    text: str
    refuses: bool
    nothing: str


TAGS = re.compile(r"<(/?)(think(?:ing)?|answer)>", re.IGNORECASE)
# Full-width forms, and brackets of other scripts, as ASCII; digits are left, to be counted where they are foreign.
PLAIN: dict[int, str] = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if not chr(code).isdecimal()},
    **{ord(each): "[" for each in "【〔〖「『［"},
    **{ord(each): "]" for each in "】〕〗」』］"},
    ord("’"): "'",
}

# How models decline, in the languages that they mostly decline in.
REFUSALS = re.compile(
    r"\bsorry\b|\bapologi[sz]e|\bI (?:can ?not|can't|am (?:unable|not able)|won't)|\bI'm (?:unable|not able)|\bas an ai\b"
    r"|\b(?:unable|not possible) to (?:rank|answer|judge|determine|assess|help|provide)"
    r"|抱歉|对不起|對不起|无法|無法|不能(?:提供|回答|排序)|作为.{0,4}(?:AI|人工智能)"
    r"|申し訳|できません|ごめん|죄송|미안|할 수 없"
    r"|извините|простите|прошу прощения|к сожалению|не могу|не в состоянии"
    r"|متأسف|متاسف|ببخشید|پوزش|عذرخواهی|نمی[‌ ]?توانم|عذرا|عذرًا|آسف|أعتذر|لا أستطيع|لا يمكنني"
    r"|lo siento|\blamento\b|no puedo|no me es posible|désolée?\b|je ne (?:peux|suis) pas|incapable de|excusez"
    r"|tut mir leid|ich kann .{0,20}nicht\b|kann ich .{0,20}nicht\b|entschuldig"
    r"|\bdesculpe|não posso|mi dispiace|non posso|क्षमा|माफ़|खेद है|नहीं कर सकत|असमर्थ",
    re.IGNORECASE,
)
READ = 1000  # characters in which a refusal is looked for: it opens the answer

# What a passage is called before its identifier.
NOUNS = (
    r"(?:passages?|pasajes?|pasaje|documents?|documentos?|dokumente?|docs?|texts?|textos?|textes?|extraits?|options?|"
    r"candidates?|items?|results?|snippets?|paragraphs?|fragmentos?|abschnitte?|numbers?|no\.|id|identifiers?|labels?|"
    r"段落|文档|文檔|文本|文章|文書|选项|選項|编号|第|パッセージ|문서|지문|단락|구절|문단|"
    r"отрывок|отрывка|отрывки|отрывку|документа?|документы|пассажа?|фрагмента?|текста?|абзаца?|"
    r"متن|سند|گذرگاه|بخش|پاراگراف|قطعه|المقطع|مقطع|الفقرة|فقرة|الوثيقة|وثيقة|المستند|النص|نص|"
    r"अनुच्छेद|दस्तावेज़|गद्यांश|पाठ)"
)
NOUN = re.compile(NOUNS, re.IGNORECASE)
NAMED = re.compile(rf"(?<![A-Za-z\u00C0-\u04FF]){NOUNS}[\s#№:.\"'“”«»*_`(\[-]{{0,4}}", re.IGNORECASE)
# Between two identifiers of one list.
CHAIN = re.compile(
    rf"[\"'”»*_`)\]]{{0,3}}[^\S\n]{{0,3}}(?:>+|≻|→|=|~|,|;|/|\||&|、|،|؛|>=|≥|->|\band\b|\bthen\b|\bund\b|\bet\b|\by\b|\bи\b|\bو\b|和|与)"
    rf"(?:[^\S\n]{{0,2}}(?:and|then))?[^\S\n]{{0,3}}(?:{NOUNS}[^\S\n]{{0,2}})?[\"'“«*_`(\[]{{0,3}}",
    re.IGNORECASE,
)
ONE_LETTER_WORDS = frozenset("AIOEY")  # in English, Spanish, French, Italian, Portuguese
# After these words a capital "A" is an identifier, for no article stands before them.
AFTER_IDENTIFIER = re.compile(
    r"[^\S\n]+(?:is|was|has|are|and|or|then|over|than|beats?|comes?|ranks?|seems|does|contains|directly|answers|vs)\b"
)
WORD_AFTER = re.compile(r"[^\S\n]+[^\W\d_]{2}")
QUANTITY = re.compile(rf"\s{{0,2}}(?:{NOUNS}|个|篇|段|つの|件|개)", re.IGNORECASE)
ORDINAL = re.compile(r"^[^\S\n]*(\d{1,3})[.):][^\S\n]+\S", re.MULTILINE)

# What announces a verdict, and what may stand between that and the label.
VERDICTS = re.compile(
    r"(?:\b(?P<final>final(?:[ _][a-z]{1,12})?)?[ _]?(?:score|grade|rating|answer|judge?ment|verdict|relevance|label|category)\b"
    r"|(?P<last>最终)?(?:得分|评分|分数|答案|等级|判断)|スコア|評価|回答|答え|점수|평가|답"
    r"|\b(?:итоговая |окончательная )?(?:оценка|ответ|балл)\b"
    r"|(?:امتیاز|نمره|پاسخ|جواب)(?: نهایی)?|(?:الدرجة|الإجابة|التقييم)(?: النهائية| النهائي)?"
    r"|\b(?:puntuación|puntaje|calificación|respuesta|nota|note|réponse|bewertung|antwort|punktzahl)(?: final(?:e)?)?\b"
    r"|(?:अंक|उत्तर|स्कोर))"
    r"[\"'*_`]{0,3}\s{0,3}(?:(?:is|was|would be|should be|of|es|est|ist|=|:|：|->|是|为|為|は|है|—|-)\s{0,3}){0,2}"
    rf"(?:{NOUNS}\s{{0,2}})?[\[(\"'*_`“«#{{]{{0,4}}\s{{0,2}}",
    re.IGNORECASE,
)
BETTER = re.compile(
    r"[\])\"'*_]{0,3}\s{1,3}(?:is|seems|appears|are)\s(?:\w{1,12}\s){0,2}?(?:more|most|better|best)\b",
    re.IGNORECASE,
)
NEGATED = re.compile(r"(?:\bnot|n't|\bnever)\s{1,2}$", re.IGNORECASE)
FRACTION = re.compile(r"(?<!\d)(\d{1,9}),(\d{1,9})(?!\d)")
OF_A_SCALE = re.compile(
    r"(?:/|\bout of|\bto|\bthrough|[-–—~]|至|到|до|تا|إلى|\bbis|\bà)\s{0,2}$", re.IGNORECASE
)
SCALE_AFTER = re.compile(
    r"\s{0,2}(?:\bto\b|\bthrough\b|[-–—~]|至|到|до|تا|إلى|\bbis\b|\bà\b)\s{0,2}\d", re.IGNORECASE
)

# What speakers also say for a label.
ALIASES = {
    "是": ("是的",),
    "否": ("不是", "不"),
    "بله": ("بلی", "آری"),
    "خیر": ("نه",),
    "हाँ": ("हां", "जी हाँ"),
    "예": ("네",),
    "아니요": ("아니오", "아뇨"),
}
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
        return written.casefold() in self.places or (
            self.kind == "letter" and len(written) == 1 and written.isalpha()
        )

    def bracketed(self, text: str) -> list[_Mention]:
        """The identifiers in square brackets that hold nothing else: [2], [Passage B], [3, 1, 2]."""
        found = []
        for inside in BRACKETS.finditer(text):
            start = inside.start(1)
            if self.kind == "word":
                words = [_Word(inside[1].strip(" \n\"'*"), start, inside.end(1))]
            else:
                words = [
                    _Word(each[0], start + each.start(), start + each.end())
                    for each in WORDS.finditer(inside[1])
                ]
            words = [word for word in words if not NOUN.fullmatch(word.text)]
            if words and all(self.could_be(word.text) for word in words):
                found += [
                    _Mention(self.place(word.text), word.start, word.end, _foreign(word.text))
                    for word in words
                ]
        return found

    def mentions(self, text: str) -> list[_Mention]:
        """Every identifier of the text as it stands there, with what speaks for and against it."""
        starts = {each.end() for each in NAMED.finditer(text)}
        capitals = self.kind != "letter" or any(
            each[0].isupper() and self.place(each[0]) is not None for each in self.pattern.finditer(text)
        )
        only = capitals or self._only_list(text)
        found: list[_Mention] = []
        for each in self.pattern.finditer(text):
            written = each[0]
            named = each.start() in starts
            before = found[-1].end if found else -100
            chained = each.start() - before <= 24 and _chains(text[before : each.start()])
            prose = False
            if self.kind == "letter":
                lower = written.islower()
                if not named and lower and (capitals or not only):
                    continue
                if written.upper() in ONE_LETTER_WORDS and not chained and not (named and not lower):
                    prose = bool(WORD_AFTER.match(text, each.end())) and not AFTER_IDENTIFIER.match(
                        text, each.end()
                    )
            elif self.kind == "number":
                prose = not named and not chained and bool(QUANTITY.match(text, each.end()))
            elif NEGATED.search(text, max(0, each.start() - 8), each.start()):
                continue
            place = self.place(_whole(written) if self.kind == "number" else written)
            found.append(_Mention(place, each.start(), each.end(), _foreign(written), named, chained, prose))
        # What a list goes on from is an identifier too.
        return [
            mention._replace(prose=False) if after is not None and after.chained else mention
            for mention, after in zip(found, [*found[1:], None], strict=False)
        ]

    def _only_list(self, text: str) -> bool:
        """Whether the text has no words but identifiers, nouns for passages, and what joins them."""
        return all(
            len(word) == 1 or NOUN.fullmatch(word) or word.casefold() in ("and", "then")
            for word in re.findall(r"[^\W\d_]+", text)
        )


class _Word(NamedTuple):
    text: str
    start: int
    end: int


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
        for alias in ALIASES.get(label, ()):
            places.setdefault(alias.casefold(), places[label.casefold()])
    for form in ("NFC", "NFD"):
        for written, place in list(places.items()):
            places.setdefault(unicodedata.normalize(form, written), place)
    longest = sorted(filter(None, places), key=len, reverse=True)
    # A word's vowel signs and accents are no letters to `\w`.
    marks = r"\u0300-\u036f\u064b-\u0652\u0900-\u0903\u093a-\u094f\u200c"
    pattern = (
        rf"(?<![\w{marks}])(?:{'|'.join(map(re.escape, longest))})(?![\w{marks}])" if longest else r"(?!)"
    )
    return _Names("word", places, re.compile(pattern, re.IGNORECASE))


def _said(text: str) -> _Said:
    """The answer without the model's reasoning; the inside of the last <answer> where there is one."""
    kept: list[str] = []  # outside of thoughts
    answers: list[tuple[bool, str]] = []  # closed or not
    thinking = False
    opened: int | None = None  # where in `kept` the answer began
    at = 0
    for tag in TAGS.finditer(text):
        if not thinking:
            kept.append(text[at : tag.start()])
        at = tag.end()
        closes, what = bool(tag[1]), tag[2].casefold()
        if what != "answer":
            if closes and not thinking:
                # It began in the prompt, so all so far was thought.
                kept, answers, opened = [], [], None
            thinking = not closes
        elif not thinking:
            if closes:
                answers.append((True, "".join(kept[opened or 0 :])))
                kept, opened = [], None
            else:
                opened = len(kept)
    if not thinking:
        kept.append(text[at:])
    if opened is not None:
        answers.append((False, "".join(kept[opened:])))
    closed = [answer for whole, answer in answers if whole] or [answer for _, answer in answers]
    found = (closed[-1] if closed else "".join(kept)).strip().translate(PLAIN)
    refuses = bool(REFUSALS.search(found, 0, READ))
    if thinking:
        nothing = "unclosed_thought"
    elif not found:
        nothing = "empty"
    else:
        nothing = "refused" if refuses else "unreadable"
    return _Said(found, refuses, nothing)


def _bare(text: str, mentions: Sequence[_Mention]) -> list[_Mention]:
    """The identifiers that stand there by themselves; none that a refusal merely speaks of."""
    likely = [mention for mention in mentions if not mention.prose]
    ordinals = _ordinals(text)
    listed = [mention for mention in likely if mention.start not in ordinals]
    likely = listed if _valid(listed) else likely
    if REFUSALS.search(text, 0, READ):
        likely = _follow(likely, [])
    return likely


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


def _settled(said: _Said, names: _Names, after: str) -> _Mention | None:
    """The mention that an answer settles on; its place is None where it settles on no label."""
    text = said.text
    mentions = [mention for mention in names.mentions(text) if not mention.prose]
    if names.kind == "number":  # 2,5 is a fraction in half of Europe
        fractions = {place for each in FRACTION.finditer(text) for place in each.span(1) + each.span(2)}
        mentions = [mention for mention in mentions if mention.start not in fractions]
    by_start = {mention.start: mention for mention in mentions}
    verdicts: list[_Mention] = []
    final = False
    for each in VERDICTS.finditer(text):
        mention = by_start.get(each.end())
        if mention is not None and not SCALE_AFTER.match(text, mention.end):
            certain = bool(each["final"] or each["last"])
            if certain and not final:
                verdicts, final = [], True
            if certain == final:
                verdicts.append(mention)
    if names.kind == "letter" and not final:
        verdicts += [mention for mention in mentions if BETTER.match(text, mention.end)]
        verdicts.sort(key=lambda mention: mention.start)
    if verdicts:
        return verdicts[-1]
    if names.kind == "number":
        ordinals = _ordinals(text)
        mentions = [
            mention
            for mention in mentions
            if mention.start not in ordinals
            and not OF_A_SCALE.search(text, max(0, mention.start - 9), mention.start)
            and not SCALE_AFTER.match(text, mention.end)
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
    return None if said.refuses else mentions[-1]


def _valid(mentions: Sequence[_Mention]) -> bool:
    return any(mention.place is not None for mention in mentions)


@lru_cache(maxsize=1024)
def _chains(between: str) -> bool:
    return CHAIN.fullmatch(between) is not None


def _whole(written: str) -> str:
    return written.partition(".")[0]


def _foreign(written: str) -> bool:
    return not written.isascii() and written.replace(".", "").isdecimal()
