"""What a judge is shown: a `Message` made of text, passages that may be cut, attached media, and a seam; cutting."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from typing import Literal, Protocol

from ...errors import InputError
from ...items import Modality
from ...media.modalities import update_hash

Chat = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class Passage:
    """The part of a message that a judge may cut to make it fit."""

    text: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A picture or another medium, as `Item.contents` holds it; opened when the judge looks at it, never before."""

    modality: Modality
    content: object


class Seam(Enum):
    """Where a cross-encoder's first input ends and its second begins; other judges read nothing there."""

    SEAM = "seam"


Part = str | Passage | Attachment | Seam


@dataclass(frozen=True, slots=True)
class Message:
    """`parts` is what the user says, in order; `answer` is how the model's answer begins, put there for it.

    `chat` says whether the model's chat template goes around it: `always` needs one, `auto` uses it where there is
    one, `never` leaves it off. Without a template, `system`, `parts` and `answer` follow each other as plain text.
    `language` is that of the words around what is asked, ISO 639-3: under it a judge counts, and it changes no answer.
    """

    parts: tuple[Part, ...]
    system: str = ""
    answer: str = ""
    chat: Chat = "never"
    language: str = "eng"

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        return tuple(part for part in self.parts if isinstance(part, Attachment))

    @property
    def passages(self) -> tuple[Passage, ...]:
        return tuple(part for part in self.parts if isinstance(part, Passage))

    @property
    def modalities(self) -> frozenset[Modality]:
        """What a judge must be able to see."""
        return frozenset({"text", *(each.modality for each in self.attachments)})

    def hash_parts(self, hashing: hashlib.blake2b) -> None:
        """Feed what the user says, and shows, to a hash."""
        for part in self.parts:
            if isinstance(part, Attachment):
                hashing.update(f"\1{part.modality}\0".encode())
                update_hash(hashing, part.modality, part.content)
            else:
                kind, text = ("p", part.text) if isinstance(part, Passage) else ("s", str(part))
                hashing.update(f"\0{kind}{len(text)}:{text}".encode("utf-8", "surrogatepass"))

    def plain(self) -> str:
        """System, parts and answer as one text, without a chat template, media and seams."""
        opening = f"{self.system}\n\n" if self.system else ""
        return opening + self.user() + self.answer

    def user(self) -> str:
        """The parts as one text."""
        return _join(self.parts)

    def join_texts(self, clean: Callable[[str], str]) -> list[str | Attachment]:
        """The parts as texts and media in turn: adjacent texts joined and put through `clean`, without empty ones."""
        joined: list[str | Attachment] = []
        for seen, group in groupby(self.parts, lambda part: isinstance(part, Attachment)):
            parts = tuple(group)
            joined += [part for part in parts if isinstance(part, Attachment)] if seen else [clean(_join(parts))]
        return [each for each in joined if each != ""]


def _join(parts: Iterable[Part]) -> str:
    texts = (part.text if isinstance(part, Passage) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


class TokenCounter(Protocol):
    """How many tokens a text has, and the text cut to so many."""

    def count(self, text: str) -> int: ...

    def cut(self, text: str, tokens: int) -> str: ...


class TokenEstimate:
    """Counts where there is no tokenizer, because the model is behind a server: a token for every three bytes of UTF-8.

    That is rather too many than too few in any script: on the demo's passages 0.97 (Swahili) to 3 (Hindi) times the
    tokens of Gemma 3, and 1.2 to 3.5 times those of XLM-R; English 1.5, Chinese 1.3. Texts of digits alone may have
    more tokens than estimated.
    """

    def count(self, text: str) -> int:
        """Tokens that the text has at most, roughly."""
        return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES)

    def cut(self, text: str, tokens: int) -> str:
        """The start of the text that has at most so many; never half a character."""
        if self.count(text) <= tokens:
            return text
        return text.encode("utf-8", "surrogatepass")[: BYTES * tokens].decode("utf-8", "ignore")


BYTES = 3  # of UTF-8 that are estimated to make a token
LEAST = 8  # tokens of a passage below which there is nothing to judge


def check_room(name: str, context: int, prompt: int, room: int) -> None:
    """`InputError` where a context has not the room for a prompt of so many tokens and for an answer of `room`."""
    if prompt + room > context:
        raise InputError(
            f"{name}: its context of {context} tokens is too short for a prompt of {prompt} and an answer of up to "
            f"{room}; lower max_new_tokens, shorten the query, or take a model with a longer context"
        )


def cut_passages(
    message: Message, counter: TokenCounter, *, passage_tokens: int, room: int, name: str
) -> tuple[Message, int]:
    """The message with its passages cut to `passage_tokens`, and further until all of it has at most `room` tokens.

    Only passages are cut, all to the same length and no shorter than needed; query and instructions never are.
    Returns also how many passages were cut. `InputError` where the context is too short for the passages.
    """
    passages = message.passages
    if not passages:
        return message, 0
    bare = replace(message, parts=tuple("" if isinstance(part, Passage) else part for part in message.parts))
    # A token may be lost or won where a passage meets its neighbours.
    left = room - counter.count(bare.plain()) - 2 * len(passages)
    lengths = [counter.count(each.text) for each in passages]
    # The largest length to which all may be cut so that they fit together.
    wanted = [min(length, passage_tokens) for length in lengths]
    fitting = bisect_right(range(max(wanted) + 1), left, key=lambda limit: sum(min(each, limit) for each in wanted))
    limit = max(fitting - 1, 0)
    if limit < min(LEAST, passage_tokens, *lengths):
        many = "one passage" if len(passages) == 1 else f"{len(passages)} passages"
        raise InputError(
            f"{name}: its context is too short for {many}: {max(left, 0)} tokens are left beside query and "
            f"instructions; show fewer passages at once, or take a model with a longer context"
        )
    parts = tuple(
        Passage(counter.cut(part.text, limit)) if isinstance(part, Passage) else part for part in message.parts
    )
    return replace(message, parts=parts), sum(length > limit for length in lengths)
