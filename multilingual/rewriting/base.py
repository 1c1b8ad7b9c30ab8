"""The base of stages that have a judge write something for every query: hypothetical documents, expansions, ..."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ...errors import InputError, check_at_least, note_kept
from ...items import Item, Role
from ...pipeline import Stage
from ...runs import Manifest, Probe, Run
from ..judges import Completion, Judge, refuse
from ..judges.kept import KeptJudge
from ..judges.messages import Message
from ..languages import fill_languages, name_language
from ..prompts import Wording
from ..prompts.wording import Value
from .feedback import check_weights
from .kept_texts import open_texts
from .reading import FAULTS, LOST, is_in, read_prose

OWN = "query"  # stands for the language of each query
SAMPLING = 0.7  # the temperature where several texts are written: HyDE's


class RewritingPrompt(Wording):
    """A wording of what is to be written for {query}, in the language named {target}; {count} is how many at most.

    The name of the query's language is {language}; `language = "document"` words it in the language that is written.
    """

    placeholders: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "template": ("query", "language", "target", "instruction", "count"),
        "system": ("language", "target", "instruction", "count"),
    }

    def word(
        self, query: Item, target: str, count: int, judge: Judge, faults: Counter[str], **values: Value
    ) -> Message:
        """The request to write in the language `target`; a wording that is lacking is counted in `faults`."""
        asked = [Item("", lang=target)]  # what is written is the document
        wording = self.in_language(self.choose_language(query, asked, faults))
        shown = wording.language if wording.language in self.words else "eng"
        named: dict[str, Value] = {"target": name_language(target, shown), "count": str(count)}
        return wording.request(query, judge.modalities, **named, **values)


class Request(NamedTuple):
    """What is asked for a query: a text in a language."""

    query: Item
    lang: str
    message: Message


@dataclass(frozen=True)
class Rewriter(Stage):
    """A judge writes `n` texts for each query, as the `wording` asks it to, and these become what is searched for.

    They are written in each of `languages` (ISO 639-3, or `query` for each query's own), and take the query's place as
    probes (`use`), beside the query itself with its `weight`. Ids, hits and the queries themselves stay. What cannot be
    used of the answers is counted by kind (`reading`); a query that the judge cannot see (`unseen`), or for which it
    wrote nothing that can be used (`unwritten`), stays as it was. Texts differ by their seed. What is written is kept
    in the file `kept` and not written again. `InputError` for a judge that does not generate, or lacks the chat
    template that the wording needs.

    A subclass says in `read` what of an answer is used, and in `use` how; a `prompt` names its wording.
    """

    judge: Judge
    wording: RewritingPrompt
    languages: tuple[str, ...] = (OWN,)
    n: int = 1
    temperature: float | None = None
    seed: int = 0
    max_new_tokens: int = 256
    weight: float = 1.0
    kept: Path | None = field(default=None, compare=False)

    prompt: ClassVar[str]  # the name of a TOML file beside the methods, or the path of one
    words: ClassVar[type[RewritingPrompt]] = RewritingPrompt
    role: ClassVar[Role] = "query"  # in which texts are encoded

    def __post_init__(self) -> None:
        check_at_least(1, max_new_tokens=self.max_new_tokens, n=self.n)
        if self.temperature is None:
            object.__setattr__(self, "temperature", SAMPLING if self.samples > 1 else 0.0)
        if not 0 <= self.heat < math.inf:
            raise InputError(f"temperature must be 0 or more, not {self.heat:g}")
        if self.samples > 1 and self.heat == 0:
            raise InputError(f"{self.samples} texts at temperature 0 are one and the same: raise temperature=, or n=1")
        check_weights(weight=self.weight)
        if not self.languages:
            raise InputError("it is not said in which language to write: write lang=query, or a code")
        if "generate" not in self.judge.can:
            raise refuse(self.judge, "generate")
        if self.wording.chat == "always" and not self.judge.chats:
            raise InputError(
                f"{self.judge.name} has no chat template, and the prompt {self.wording.name} needs one; take an "
                f"instruction-tuned model, or set chat=never"
            )

    def show(self, run: Run) -> Mapping[str, Mapping[str, Value]]:
        """What else the prompt shows for each query, by placeholder; one that is left out is not asked about."""
        return {query.id: {} for query in run.queries}

    def read(self, answer: Completion, faults: Counter[str]) -> list[str]:
        """The texts in an answer; none where nothing of it can be used, which is counted in `faults`."""
        return [text] if (text := read_prose(answer, faults)) else []

    def use(self, query: Item, texts: Sequence[Item]) -> Sequence[Probe]:
        """What is searched for beside the query, of at least one text that was written for it, in its language."""
        return [Probe(text, self.role) for text in texts]

    def keep_query(self, query: Item) -> Sequence[Probe]:
        """The query itself, as far as it counts."""
        return [Probe(query, "query", self.weight)] if self.weight else []

    @property
    def heat(self) -> float:
        """The temperature."""
        return self.temperature or 0.0

    @property
    def samples(self) -> int:
        """How many answers a request has."""
        return self.n

    def apply(self, run: Run, count: Counter[str]) -> Run:
        faults: Counter[str] = Counter()
        requests = self._request(run, faults)
        texts = self._write(requests, faults, count) if requests else {}
        probes = dict(run.probes)
        for query in run.queries:
            if written := texts.get(query.id):
                probes[query.id] = (*self.keep_query(query), *self.use(query, written))
        faults["unwritten"] = len({each.query.id for each in requests} - texts.keys())
        count["rewritten"] = len(texts)
        count.update(+faults)
        return replace(run, probes=probes)

    def _request(self, run: Run, faults: Counter[str]) -> list[Request]:
        """What is asked for the queries that the judge can see."""
        requests = []
        shown = self.show(run)
        for query, found in zip(run.queries, fill_languages(run.queries), strict=True):
            if query.id not in shown:
                faults["without_hits"] += 1
                continue
            if not query.modalities & self.judge.modalities:
                faults["unseen"] += 1
                continue
            own = found.lang or "eng"
            for lang in dict.fromkeys(own if each == OWN else each for each in self.languages):
                message = self.wording.word(query, lang, self.n, self.judge, faults, **shown[query.id])
                requests.append(Request(query, lang, message))
        return requests

    def _write(
        self, requests: Sequence[Request], faults: Counter[str], count: Counter[str]
    ) -> Mapping[str, Sequence[Item]]:
        """The texts for each query, those of one request together; queries without any are left out."""
        found: dict[int, list[str]] = {place: [] for place in range(len(requests))}
        messages = [each.message for each in requests]
        with self._asking(len(requests) * self.samples, count) as judge:
            for sample in range(self.samples):
                how = {"temperature": self.heat, "seed": self.seed + sample, "max_new_tokens": self.max_new_tokens}
                for place, answer in enumerate(judge.generate(messages, **how)):
                    texts = self.read(answer, faults)
                    if texts and not is_in("\n".join(texts), requests[place].lang):
                        faults["other_language"] += 1
                        texts = []
                    found[place] += texts
        written: dict[str, list[Item]] = {}
        for place, texts in found.items():
            query, lang, _ = requests[place]
            mine = written.setdefault(query.id, [])
            mine += [Item(f"{query.id}/{len(mine) + n}", text, lang=lang) for n, text in enumerate(texts)]
        return {id: items for id, items in written.items() if items}

    @contextmanager
    def _asking(self, expected: int, count: Counter[str]) -> Iterator[Judge]:
        """The judge, which writes only what is not kept; what the texts cost is counted, whenever they were written."""
        before = Counter(self.judge.usage)
        with open_texts(self.kept) as journal:
            if journal is None:
                yield self.judge
            else:
                judge: Any = KeptJudge(self.judge, journal, expected)
                held = len(journal)
                try:
                    yield judge
                except BaseException as stop:
                    if new := len(journal) - held:
                        note_kept(stop, f"{new + judge.taken} of {expected} texts")
                    raise
                count.update(journal.counted + Counter(kept=judge.taken))
        count.update(Counter(self.judge.usage) - before)

    @property
    def models(self) -> Mapping[str, str]:
        return {self.judge.name: self.judge.revision}

    def __str__(self) -> str:
        langs = "" if self.languages == (OWN,) else f", lang={','.join(self.languages)}"
        return f"rewrite({type(self).__name__.lower()}@{self.judge.name}{langs})"


def describe_rewriting(manifest: Manifest) -> list[str]:
    """What people should know of how queries were rewritten, a line each."""
    records = [each for each in manifest.records if each.stage.startswith("rewrite(")]
    return [line for record in records for line in describe_texts(record.counts, next(iter(record.models), ""))]


def describe_texts(counts: Mapping[str, float], name: str) -> Iterator[str]:
    """What people should know of the texts that a model wrote."""
    held = Counter({kind: int(number) for kind, number in counts.items()})
    if lost := [f"{kind.replace('_', ' ')} {held[kind]}" for kind in LOST if held[kind]]:
        unused = sum(held[kind] for kind in LOST)
        yield f"{name}: answers that were not used: {unused} of {held['calls']} ({', '.join(lost)})"
    if partly := [f"{kind.replace('_', ' ')} {held[kind]}" for kind in FAULTS if kind not in LOST and held[kind]]:
        yield f"{name}: answers that were used in part, of {held['calls']}: {', '.join(partly)}"
    for kind, why in (
        ("unwritten", f"{name} wrote nothing usable for them"),
        ("without_hits", f"nothing was found that {name} could read"),
        ("unseen", f"{name} cannot see them"),
    ):
        if held[kind]:
            yield f"queries that stay as they were: {held[kind]}; {why}"
    for kind, number in held.items():
        if kind.startswith("prompt_not_in_"):
            language = kind.removeprefix("prompt_not_in_")
            yield f"the prompt has no {language} words: {number} texts were asked for in English"
