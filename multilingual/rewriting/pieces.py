"""Texts in pieces that a translator reads one at a time: sentences, chunks of them, and the text made whole again."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

# Where a sentence may end. Marks of scripts without capitals always end one, a full stop where a space and no small
# letter follow, and not after an abbreviation ("Mr. Smith", "U.S. troops").
_ALWAYS = r"[。！？｡؟۔।॥።။៕]+[」』”’\"')）]*\s*"
_MAYBE = r"[.!?…]+[\"'”’»)\]]*\s+"
_END = re.compile(f"(?:{_ALWAYS})|(?:{_MAYBE})")
_SHORT = re.compile(r"(?:^|[^\w])[^\W\d_]{1,2}\.$")

# Where a sentence that is too long is cut, the best place first.
_CUTS = (re.compile(r"[;:；：؛]\s*"), re.compile(r"[,，、،]\s*"), re.compile(r"\s+"))

SPACELESS = frozenset(("Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"))

Piece = tuple[str, str | None]  # a text without white space around it, and the language it is in


def split_sentences(text: str) -> Iterator[str]:
    """The sentences of a text, a line's end being one too; joined they are the text again."""
    for line in text.splitlines(keepends=True):
        begins = 0
        for match in _END.finditer(line):
            ends = match.end()
            if ends < len(line) and _goes_on(line, match):
                continue
            yield line[begins:ends]
            begins = ends
        if begins < len(line):
            yield line[begins:]


def split_to_fit(text: str, fits: Callable[[str], bool]) -> list[str]:
    """A text in parts that fit, cut at clauses, else between words, else anywhere; joined they are the text again."""
    if fits(text) or len(text) < 2:
        return [text]
    at = _middle(text)
    return [*split_to_fit(text[:at], fits), *split_to_fit(text[at:], fits)]


def join_pieces(pieces: Sequence[str], most: int, *, lines: bool) -> Iterator[str]:
    """Neighbouring pieces joined while they have at most `most` characters; across the ends of lines with `lines`."""
    held = ""
    for piece in pieces:
        if held and (len(held) + len(piece) > most or (not lines and held[-1:].splitlines() == [""])):
            yield held
            held = ""
        held += piece
    if held:
        yield held


def translate_pieces(
    texts: Sequence[str],
    sources: Sequence[str | None],
    to: str,
    cut: Callable[[str, str | None], Sequence[str]],
    translate: Callable[[Sequence[Piece]], Sequence[str]],
    usage: Counter[str],
) -> list[str]:
    """Each text cut into pieces by `cut`, these by `translate`, each once, and the text made whole again.

    Pieces without a letter in them stay as they are, and so do those for which it has no words (counted as
    `untranslated_pieces`). A text of which nothing was translated comes back empty.
    """
    pieces = [list(cut(text, source)) for text, source in zip(texts, sources, strict=True)]
    wanted = {
        (piece.strip(), source): ""
        for row, source in zip(pieces, sources, strict=True)
        for piece in row
        if any(map(str.isalpha, piece))
    }
    wanted.update(zip(wanted, translate(list(wanted)), strict=True))
    made = []
    for text, row, source in zip(texts, pieces, sources, strict=True):
        asked = [wanted[piece.strip(), source] for piece in row if (piece.strip(), source) in wanted]
        if asked and not any(asked):
            made.append("")
            continue
        usage["untranslated_pieces"] += asked.count("")
        made.append(_whole([(piece, wanted.get((piece.strip(), source), "")) for piece in row], to) or text)
    return made


@lru_cache(maxsize=512)
def puts_spaces(code: str) -> bool:
    """Whether a language (ISO 639-3) puts spaces between words."""
    import langcodes

    return langcodes.Language.get(code).maximize().script not in SPACELESS


def _goes_on(line: str, match: re.Match[str]) -> bool:
    """Whether a sentence goes on after what may be its end."""
    if not match[0][0].isascii() and match[0][0] != "…":
        return False
    follows = next((each for each in line[match.end() :] if each.isalnum()), "")
    return follows.islower() or bool(_SHORT.search(line, max(match.start() - 3, 0), match.start() + 1))


def _middle(text: str) -> int:
    """The place to cut a text: the best kind of place in its middle half, and of these the nearest to the middle."""
    half = len(text) / 2
    for kind in _CUTS:
        places = [each.end() for each in kind.finditer(text) if half / 2 <= each.end() <= 3 * half / 2]
        if inside := [place for place in places if 0 < place < len(text)]:
            return min(inside, key=lambda place: abs(place - half))
    at = len(text) // 2
    while at < len(text) - 1 and unicodedata.combining(text[at]):  # a letter keeps its marks
        at += 1
    return at


def _whole(pieces: Sequence[tuple[str, str]], to: str) -> str:
    """Pieces in their new words, the white space around them as it was, but as `to` has it between sentences."""
    apart = puts_spaces(to)
    made = ""
    for piece, words in pieces:
        if not words:
            made += piece
            continue
        before, after = piece[: -len(piece.lstrip())], piece[len(piece.rstrip()) :]
        if apart and made and not made[-1].isspace() and not before:
            made += " "  # sentences of Chinese stand without a space between them
        made += before + words + after
    if not apart:
        made = re.sub(r"(?<=[。！？]) (?=\S)", "", made)
    return made
