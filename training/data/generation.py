"""Queries written by a language model: what it is shown of a document, what it is asked, and how its answer is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

from ...errors import InputError, check_at_least, unknown_name
from ...items import Item, hash_json, windows
from ...multilingual.collections.records import read_json_lines
from ...multilingual.judges import Completion, Judge, find_judge, open_judge, refuse
from ...multilingual.judges.messages import Message, Passage
from ...multilingual.languages import measure_text
from ...multilingual.prompts import Wording, configure_wording, load_wording, split_method
from ...multilingual.prompts.wording import fill_text
from ...multilingual.rewriting.pieces import split_sentences
from ...multilingual.rewriting.reading import LOST, read_line, read_words
from ...pipeline import advance
from ...rows.fields import FileRow
from ...specs import distribute_options
from .base import Draft, Making, split_title

STYLES = ("question", "keywords", "title")
EXAMPLE = "inpars@hf:Qwen/Qwen2.5-1.5B-Instruct?n=2&styles=question,keywords"
AT_ONCE = 32  # requests to a model on a CPU, which a kill takes at most; more where its appetite is larger
SHOWN = 1200  # letters of a document that a model is shown, as `measure_text` counts
KEYWORDS = 5  # that are taken of those that a model lists: it was asked for no more
SHOTS = 5  # examples that a few-shot prompt shows of those it is given


@dataclass(frozen=True, kw_only=True)
class QueryWording(Wording):
    """A wording of the request to write a query in {language} that the document {passage} answers.

    {task} is the text of the style that is wanted: `question`, `keywords` or `title`. {shots} are given examples, each
    written as `shot` with {passage}, {query} and the {language} of that.
    """

    question: str = ""
    keywords: str = ""
    title: str = ""
    shot: str = ""

    placeholders: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "template": ("passage", "task", "language", "shots"),
        "system": ("task", "language"),
        **dict.fromkeys(STYLES, ("language",)),
        "shot": ("passage", "query", "language"),
    }
    translated: ClassVar[tuple[str, ...]] = (*Wording.translated, *STYLES, "shot")

    def __post_init__(self) -> None:
        super().__post_init__()
        if "passage" not in self.list_placeholders("template"):
            raise self._fault("lacks the placeholder {passage}")
        if bool(self.shot) != ("shots" in self.list_placeholders("template")):
            raise self._fault("needs both: {shots} in `template`, and `shot`, which says how an example is written")

    @property
    def styles(self) -> tuple[str, ...]:
        """The styles that it has words for; where it names no {task}, a query is what its model writes: `question`."""
        if "task" not in self.list_placeholders("template", "system"):
            return ("question",)
        return tuple(style for style in STYLES if getattr(self, style))

    def ask(self, passage: str, query: Item, style: str, shots: Sequence[Shot]) -> Message:
        """The request for one query, in the wording's own language; `query` has the language it is to be written in."""
        language = self._name_language(query)
        examples = ""
        for each in shots:
            named = self._name_language(replace(query, lang=each.lang or query.lang))
            examples += fill_text(self.shot, {"passage": each.passage, "query": each.query, "language": named})
        task = fill_text(getattr(self, style), {"language": language})
        return self.fill({"passage": Passage(passage), "task": task, "language": language, "shots": examples})


@dataclass(frozen=True, slots=True)
class Shot:
    """An example of a document and a query for it, the query in the language `lang` (None: not given)."""

    passage: str
    query: str
    lang: str | None = None


@dataclass(frozen=True)
class Generator:
    """A language model that writes queries for documents.

    Instructed as in InPars (Bonifacio et al. 2022), with given examples as in Promptagator (Dai et al. 2023), or
    trained to it (doc2query, Nogueira et al. 2019); the prompt says which. Each document gets `n` queries, in the
    `styles` in turn, sampled at a `temperature` (0: greedily), with at most `max_new_tokens`. A long document is shown
    in parts: the first query is for its beginning, each further one for sentences from a place that the seed chooses.
    `InputError` for a judge that does not generate, or lacks the chat template that the prompt needs.
    """

    judge: Judge
    wording: QueryWording
    n: int = 1
    styles: tuple[str, ...] = ("question",)
    temperature: float = 0.7
    max_new_tokens: int = 64
    shots: tuple[Shot, ...] = ()
    copies: bool = field(default=False, init=False)
    whole: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_at_least(1, n=self.n, max_new_tokens=self.max_new_tokens)
        if not 0 <= self.temperature <= 10:
            raise InputError(f"temperature must be between 0 and 10, not {self.temperature:g}")
        _check_styles(self.wording, self.styles)
        if self.wording.shot and not self.shots:
            raise InputError(f"the prompt {self.wording.name} needs examples: add shots=FILE (JSON lines text, query)")
        if "generate" not in self.judge.can:
            raise refuse(self.judge, "generate")
        if self.wording.chat == "always" and not self.judge.chats:
            raise InputError(
                f"{self.judge.name} has no chat template, and the prompt {self.wording.name} needs one; take an "
                "instruction-tuned model, or promptagator with examples"
            )

    @property
    def name(self) -> str:
        return f"{self.wording.name}@{self.judge.name}"

    @property
    def models(self) -> Mapping[str, str]:
        return {self.judge.name: self.judge.revision}

    @property
    def usage(self) -> Counter[str]:
        return self.judge.usage

    def describe(self) -> dict[str, Any]:
        wording, own = self.wording, (*STYLES, "template", "system", "answer", "shot", "chat", "language")
        words = {key: getattr(wording, key) for key in own if getattr(wording, key)}
        return {
            "prompt": wording.name,
            "paper": wording.paper,
            "words": words,
            "words_sha256": hash_json([words, wording.words], 64),
            "model": self.judge.fingerprint,
            "n": self.n,
            "styles": list(self.styles),
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "shots": [[each.passage, each.query, each.lang] for each in self.shots],
        }

    def count(self, documents: int) -> int:
        return self.n * documents

    @cached_property
    def _at_once(self) -> int:
        return max(1, max(AT_ONCE, self.judge.appetite // 128) // self.n)

    def make(
        self, read: Callable[[], Iterator[Item]], chosen: Container[str], making: Making
    ) -> Iterator[tuple[Item, list[Draft]]]:
        documents = (document for document in read() if document.id in chosen)
        for some in windows(documents, self._at_once):
            wanted = [(document, query, style) for document in some for query, style in self._want(document, making)]
            requests = [self._request(document, query, style, making) for document, query, style in wanted]
            answers = iter(self._write(requests, making) if requests else [])
            drafts: dict[str, list[Draft]] = {document.id: [] for document in some}
            for document, query, style in wanted:
                text, fault = read_query(Completion(*next(answers)), style)
                drafts[document.id].append(Draft(text, query.lang, style, fault))
            for document in some:
                yield document, drafts[document.id]

    def _want(self, document: Item, making: Making) -> Iterator[tuple[Item, str]]:
        """For each of the document's queries its id and language, as an item without text, and its style."""
        turn = int(making.draw("style", document.id) * len(self.styles))
        for number in range(self.n):
            lang = making.mix.choose(document, making.draw("lang", document.id, number))
            if lang is None:
                making.count["documents_without_language"] += number == 0
                advance()
                continue
            yield Item(str(number), lang=lang), self.styles[(turn + number) % len(self.styles)]

    def _request(self, document: Item, query: Item, style: str, making: Making) -> Message:
        wording = self.wording.in_language(self.wording.choose_language(query, [document], making.count))
        passage = show_part(document, int(query.id), making)
        # Examples in the language that is wanted come first; the seed turns them, so that all are seen.
        fitting = [each for each in self.shots if each.lang == query.lang] or list(self.shots)
        turn = int(making.draw("shots", document.id, query.id) * max(len(fitting), 1))
        return wording.ask(passage, query, style, [*fitting[turn:], *fitting[:turn]][:SHOTS])

    def _write(self, requests: Sequence[Message], making: Making) -> list[list[Any]]:
        """The model's answers, as the fields of a `Completion`, to requests that are always asked together.

        What a server samples may depend on that, and a local model's answers to equal requests differ by their number.
        """
        stop = () if self.judge.chats and self.wording.chat != "never" else ("\n",)
        sampling = {
            "max_new_tokens": self.max_new_tokens, "temperature": self.temperature, "stop": stop, "seed": making.seed,
        }  # fmt: skip
        asked = [[each.system, each.user(), each.answer, each.chat] for each in requests]
        answered = False

        def write() -> list[list[Any]]:
            nonlocal answered
            answered = True
            return [[each.text, each.tokens, each.ended] for each in self.judge.generate(requests, **sampling)]

        found = making.keep("writing", [self.judge.fingerprint, asked, sampling], write, self.judge.usage)
        if not answered:
            advance(len(requests))
        return list(found)


def show_part(document: Item, number: int, making: Making) -> str:
    """What a model is shown of a document for its query of that number: title and text, or title and a part of it."""
    title, body = split_title(document)
    room = SHOWN - measure_text(title)
    if measure_text(body) > room:
        sentences = list(split_sentences(body))
        # From a place that leaves enough to be shown after it.
        lengths = [measure_text(each) for each in sentences]
        left = [*accumulate(reversed(lengths))][::-1]
        last = max((n for n, length in enumerate(left) if length >= room), default=0)
        begins = int(making.draw("part", document.id, number) * (last + 1)) if number else 0
        shown: list[str] = []
        for sentence, length in zip(sentences[begins:], lengths[begins:], strict=True):
            if shown and room < length:
                break
            shown.append(sentence)
            room -= length
        body = "".join(shown).strip()
    return f"{title}\n{body}" if title else body


def read_query(answer: Completion, style: str) -> tuple[str, str]:
    """The query in an answer, its first line or the keywords that it lists, and why there is none, or no whole one."""
    faults: Counter[str] = Counter()
    listed = style == "keywords"
    read = " ".join(read_words(answer, faults)[:KEYWORDS]) if listed else read_line(answer, faults)
    text = " ".join(read.split())
    if not text:
        return "", next((kind for kind in LOST if faults[kind]), "empty")
    return text, "cut" if faults["cut_answers"] and not listed else ""


def load_generator(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> Generator:
    """The generator of a SPEC `PROMPT@FAMILY:CHECKPOINT[?n=&styles=&temperature=&max_new_tokens=&shots=&...]`.

    The prompt is a name or a TOML file; its own options (`language`, `chat`) and the model's stand beside these. Other
    packages add prompts by entry points of `crosslens.generators`. `InputError` for what is wrong, before any weights
    are loaded as far as that can be known.
    """
    name, spec = split_method(text, "generator", EXAMPLE)
    wording = load_wording(QueryWording, name, files(__package__), "crosslens.generators")
    factory, spec = find_judge(spec)
    given = {"device": device, "trust_remote_code": trust_remote_code}
    targets: list[tuple[Callable[..., Any], Mapping[str, object]]] = [
        (configure_generator, {}), (configure_wording, {}), (factory, given),
    ]  # fmt: skip
    own, words, options = distribute_options(spec, text.partition("?")[0], targets)
    wording = configure_wording(wording, **words)  # type: ignore[arg-type]
    settings = configure_generator(**own)  # type: ignore[arg-type]
    _check_styles(wording, settings["styles"])
    return Generator(open_judge(factory, spec.checkpoint, options), wording, **settings)


def configure_generator(
    *, n: int = 1, styles: str = "question", temperature: float = 0.7, max_new_tokens: int = 64, shots: str = ""
) -> dict[str, Any]:
    """The fields of a `Generator` that a SPEC sets: keyword parameters are its options. `InputError` on bad `shots`."""
    listed = tuple(dict.fromkeys(each.strip() for each in styles.split(",")))
    return {
        "n": n, "styles": listed, "temperature": temperature, "max_new_tokens": max_new_tokens,
        "shots": read_shots(Path(shots)) if shots else (),
    }  # fmt: skip


def _check_styles(wording: QueryWording, styles: Sequence[str]) -> None:
    for style in styles:
        if style not in wording.styles:
            raise unknown_name(style, wording.styles, f"style of the prompt {wording.name}:")


def read_shots(path: Path) -> tuple[Shot, ...]:
    """Examples from JSON lines `text, query[, lang]`; `InputError` names the line that is none."""
    shots = []
    for place, line in read_json_lines(path):
        try:
            row = FileRow.parse(line)
            texts = [row.require_text(key, "the example", place) for key in ("text", "query")]
            shots.append(Shot(texts[0].strip(), texts[1].strip(), row.read_lang()))
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    if not shots:
        raise InputError(f"{path} has no examples")
    return tuple(shots)
