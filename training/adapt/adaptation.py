"""`crosslens adapt`: from a collection's documents to an encoder that knows them, in one call and without labels."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...encoders.base import encode_matrix
from ...encoders.registry import load_encoder
from ...errors import InputError, check_at_least
from ...files import read_json, write_json
from ...items import Item, hash_json, hash_text
from ...multilingual.collections.base import Collection, MissingPart
from ...multilingual.collections.registry import load_collection
from ...multilingual.languages import fill_languages
from ...pipeline import Progress, show_nothing
from ...runs import Qrels
from ...specs import Spec
from ...systems.indexing import index_collection
from ..card import THERE
from ..data.base import LanguageMix
from ..data.examples import Example, load_examples, write_examples
from ..data.judged import select_judged
from ..data.mine import Mining
from ..data.registry import load_source
from ..data.selection import Selection
from ..data.synthesize import CARD as SOURCE_CARD
from ..data.synthesize import Synthesis, list_wordings
from ..data.teacher import plan_teacher
from ..data.translations import name_page
from ..encoder.train import train_encoder
from ..encoder.trainable import find_family
from ..recipe import EncoderRecipe, check_above, read_recipe
from ..session import find_finished, open_work
from .comparison import AFTER, BEFORE, Compared, compare
from .subset import Made, Subset, draw_share, hold_out, list_heads

log = logging.getLogger("crosslens")

FORMAT = 1
CARD = "adaptation.json"
DENSE = ("hf", "llm")  # families of bases; offline: models become one of them
# What needs no model, best first: what pairs languages with each other, then what a document says of itself.
MINED = ("translations?by=id", "translations?by=vectors&encoder={}", "titles", "ict")
ENOUGH = 1000  # questions that were made without a model, from which on no further source is asked
GENERATED = "inpars@{}?n=2&styles=question,keywords"
FIRST = 11  # rank of hard negatives without a judge: fewer of them are false than of the first ten
LEAST = 32  # questions that are worth to be trained on
TIMED = 64  # documents, on which it is measured what encoding takes
TRIALS = (2, 18)  # documents, or questions, on which it is measured what a model costs
COMPARED = 1.5  # times the encoding of all documents, that the comparison at the end takes
HELD_OUT = (0.1, 300)  # share of the documents, and how many at most
COSTLY = ("generator-*", "mined/trial-*", ".trained.partial/checkpoint-*", "trained", "checkpoint")
GENERATOR_SHARE, JUDGE_SHARE = 0.3, 0.5  # of the time that is left, which a model may take


@dataclass(frozen=True)
class Adapted:
    """What came of it: the checkpoint, the SPEC that loads it, how it compares with its base, and the card."""

    output: Path
    card: Mapping[str, Any]
    before: bool = False  # the same call had made it already

    @property
    def better(self) -> bool:
        """By the collection's own judgements where it has some, else by questions that were held out."""
        return bool(self.card["verdict"] == "better")

    def to_json(self) -> dict[str, Any]:
        return {"output": str(self.output), **self.card}

    def __str__(self) -> str:
        card = self.card
        made = ", ".join(f"{name} {number}" for name, number in card["questions"].items())
        lines = [f"questions: {made}; {card['examples']['examples']} to train on"]
        lines += [each["text"] for each in card["compared"].values()]
        lines.append(
            f"{self.output}: {'better' if self.better else 'not better'} than {card['base']}; {card['seconds']:.0f} s"
        )
        return "\n".join([*lines, f"load it as {card['spec']}"])

    @property
    def notes(self) -> list[str]:
        """What people should know, a line each."""
        return [THERE] * self.before + list(self.card["notes"])


@dataclass(frozen=True)
class Adaptation:
    """How a base, the SPEC of an encoder, is adapted to a collection.

    Questions come from the `sources` (SPECs as `synthesize` has them; none: titles of translations, which ids tell or
    the base's vectors, and where these are few, titles, and sentences taken out of their documents) and, where there is
    one, from the model `generator`, in the languages `langs` as `synthesize --langs` has them. `judge` is a reranker's
    SPEC whose prompt shows one passage: the encoder is taught its scores of what the base finds. Without one it learns
    to tell a question's document from those of others.

    `documents` get questions at most, and `pool` are searched at most: more are drawn from by lot. The work is cut to
    `minutes` on this machine, the model's share first. The recipe is `adapt`, with a judge `adapt-distilled`.
    """

    base: str
    sources: Sequence[str] = ()
    generator: str | None = None
    judge: str | None = None
    langs: str = "same"
    recipe: str | None = None
    documents: int = 4000
    pool: int = 10_000
    minutes: float = 60.0
    seed: int = 0
    device: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_at_least(1, documents=self.documents, pool=self.pool)
        check_above(0, minutes=self.minutes)
        if (family := find_family(self.base)) not in DENSE:
            raise InputError(
                f"{self.base}: {family}: makes no single vector of a text; adapt a base of {', '.join(DENSE)}"
            )
        for source in self.all_sources:
            load_source(source, **self.how)
        LanguageMix.parse(self.langs)
        if self.judge is not None:
            plan_teacher(self.judge, "--judge", **self.how)
        elif (loss := self.chosen_recipe.loss) in ("kl", "margin-mse"):
            raise InputError(f"the recipe's loss {loss} learns from a teacher's scores: give a --judge")

    @property
    def how(self) -> dict[str, Any]:
        return {"device": self.device, "trust_remote_code": self.trust_remote_code}

    @property
    def all_sources(self) -> tuple[str, ...]:
        """The SPECs of all sources, that of the generator last, which may be one itself (`inpars@...`)."""
        generator = self.generator
        if generator is not None and "@" not in generator:
            generator = GENERATED.format(generator)
        mined = (each.format(quote(self.base, safe="/:,@")) for each in MINED)
        return (*(self.sources or mined), *([generator] if generator else []))

    @property
    def chosen_recipe(self) -> EncoderRecipe:
        return read_recipe(EncoderRecipe, self.recipe or ("adapt-distilled" if self.judge else "adapt"), seed=self.seed)

    def describe(self, collection: Collection) -> dict[str, Any]:
        """What decides the result but for the time that there was, JSON-able."""
        return {
            "format": FORMAT, "collection": collection.name, "base": self.base, "sources": list(self.all_sources),
            "judge": self.judge, "langs": self.langs, "documents": self.documents, "pool": self.pool,
            "recipe": self.chosen_recipe.to_json(), "seed": self.seed,
        }  # fmt: skip

    def run(self, collection: Collection, output: str | Path, *, progress: Progress = show_nothing) -> Adapted:
        """Write the checkpoint directory `output`, with the card `adaptation.json` in it.

        Work is kept in `.OUTPUT.partial/`; killed, the same call goes on from there. Topics of the collection become no
        questions; its judgements, if it has some, are read for the comparison alone. `InputError` for what is wrong
        with the collection, for too few questions, and for an output that is something else.
        """
        output = Path(output)
        if not output.parent.is_dir():
            raise InputError(f"there is no directory {output.parent} to make {output.name} in")
        about = self.describe(collection)
        if found := find_finished(output, CARD, about):
            return Adapted(output, found, before=True)
        work = output.parent / f".{output.name}.partial"
        with open_work(work, about, lambda: holds_costly(work)):
            Work(self, collection, work, progress).make(about)
            checkpoint = work / "checkpoint"
            card = read_json(checkpoint / CARD)
            card["spec"] = _name_result(card["spec"], output)
            write_json(checkpoint / CARD, card)
            os.replace(checkpoint, output)
        shutil.rmtree(work, ignore_errors=True)
        return Adapted(output, card)


@dataclass
class Work:
    """One adaptation under way, in a folder that holds what is finished of it."""

    task: Adaptation
    collection: Collection
    folder: Path
    progress: Progress
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.how = self.task.how
        self.before = float(self._keep("spent", lambda: 0.0))
        self.asked, self.judged = _read_judgements(self.collection)
        if pictured := [query for query in self.asked if query.modalities != {"text"}]:
            self.asked = [query for query in self.asked if query.modalities == {"text"}]
            self.judged = {query.id: self.judged[query.id] for query in self.asked}
            self.notes.append(f"{len(pictured)} judged topics hold more than text, and are left out of the comparison")

    @property
    def spent(self) -> float:
        """Seconds, with those of sessions before."""
        return self.before + time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds of the time that there is."""
        return max(60 * self.task.minutes - self.spent, 0.0)

    def make(self, about: Mapping[str, Any]) -> None:
        """Make `checkpoint/` with its card."""
        task = self.task
        chosen = self._choose()
        encoding = self._index(chosen)
        if (needed := COMPARED * encoding) > self.left:
            log.warning(
                "comparing %d documents takes %.0f minutes here, more than are left: --minutes will not hold; fewer "
                "documents (--pool), or fewer that are judged, would be quicker",
                len(chosen),
                needed / 60,
            )
        made = self._ask(chosen)
        groups = {id: name_page(item) for each in made for id, item in each.documents.items()}
        held, rest = self._split(groups)
        trial = hold_out(made, held, f"{self.collection.name}, held out", self.collection, chosen)
        heads = list_heads(self.collection, held)
        examples = self._write_examples(made, rest, heads, chosen)
        # What was trained encodes all once, and what was held out as its source has it: so much is left for it.
        left = float(self._keep("training-seconds", lambda: self.left - COMPARED * encoding))
        recipe = replace(task.chosen_recipe, minutes=max(left, 60.0) / 60)
        if left < 60:
            self.notes.append(f"{task.minutes:g} minutes were over before training began: it got one")
        trained = train_encoder(
            load_examples(examples), task.base, self.folder / "trained", recipe, progress=self.progress, **self.how
        )
        self._note_time()
        compared = self._compare(trial, trained.spec, chosen)
        verdict = next(iter(compared.values())).verdict
        card = {
            **about,
            "spec": trained.spec,
            "questions": {each.source: len(each.asked) for each in made},
            "examples": load_examples(examples).card,
            "compared": {name: {**each.to_json(), "text": str(each)} for name, each in compared.items()},
            "verdict": verdict,
            "notes": [*self.notes, *trained.notes],
            "seconds": round(self.spent, 1),
        }
        write_json(self.folder / "trained" / CARD, card)
        os.replace(self.folder / "trained", self.folder / "checkpoint")

    def _choose(self) -> set[str]:
        """The documents that are searched: those that are judged, and others by lot; all such as the base reads."""
        reads = load_encoder(self.task.base, **self.how).spec.modalities
        unread = {item.id for item in self.collection.docs() if item.modalities.isdisjoint(reads)}
        if unread:
            self.notes.append(f"{len(unread)} documents hold nothing that {self.task.base} reads, and are left out")
            self._leave_out(unread)
        wanted = {id for grades in self.judged.values() for id in grades}
        read = (item for item in self.collection.docs() if item.id not in unread)
        choice = Selection(self.task.pool, seed=self.task.seed).choose(fill_languages(read), self.collection.name)
        return {item.id for item in self.collection.docs() if item.id in choice.ids or item.id in wanted}

    def _leave_out(self, documents: Container[str]) -> None:
        """Judge without them: topics that nothing else answers are not asked."""
        left = {
            topic: {id: grade for id, grade in grades.items() if id not in documents}
            for topic, grades in self.judged.items()
        }
        self.judged = {topic: grades for topic, grades in left.items() if max(grades.values(), default=0) > 0}
        self.asked = [query for query in self.asked if query.id in self.judged]

    def _index(self, chosen: set[str]) -> float:
        """The base's index of them, in which negatives are found; the seconds that their encoding takes.

        These are timed on some of them: the vector cache may have had all.
        """
        subset = Subset(self.collection.name, self.collection, chosen, (), {})
        index_collection(
            subset, self.folder / BEFORE, [self.task.base], documents=len(chosen), lexical=False, sync=True,
            progress=self.progress, **self.how,
        )  # fmt: skip

        def measure() -> float:
            encoder = load_encoder(self.task.base, **self.how)
            some = list(islice(subset.docs(), TIMED))
            started = time.monotonic()
            encode_matrix(encoder, some, "document")
            return round((time.monotonic() - started) / len(some) * len(chosen), 1)

        return float(self._keep("encoding", measure))

    def _ask(self, chosen: set[str]) -> list[Made]:
        """The questions of each source; a source that has none is noted, and all of them must have some together."""
        made: list[Made] = []
        for number, source in enumerate(self.task.all_sources):
            if not self.task.sources and "@" not in source and sum(len(each.asked) for each in made) >= ENOUGH:
                continue
            make = partial(self._synthesize, source, chosen)
            documents = self.task.documents
            if "@" in source:
                room = self._keep(f"generator-{number}-seconds", lambda: GENERATOR_SHARE * self.left)
                documents = self._afford(f"generator-{number}", min(documents, len(chosen)), make, room)
            try:
                folder = make(documents)
            except InputError as error:
                if self.task.sources or "@" in source:
                    raise
                self.notes.append(str(error))
                continue
            if read_json(folder / SOURCE_CARD)["queries"]["kept"]:
                made.append(Made.read(source, load_collection(folder)))
            else:
                self.notes.append(f"{source} made no question")
            self._note_time()
        if (number := sum(len(each.asked) for each in made)) < LEAST:
            raise InputError(
                f"{self.collection.name} gave {number} questions, and {LEAST} are needed at least: more documents, or "
                f"a --generator"
            )
        return made

    def _synthesize(self, source: str, chosen: set[str], documents: int) -> Path:
        """Where the questions of a source are."""
        task = self.task
        folder = self.folder / "questions" / f"{hash_json([source])}-{documents}"
        folder.parent.mkdir(exist_ok=True)
        subset = Subset(self.collection.name, self.collection, chosen, (), {})
        generated = "@" in source
        synthesis = Synthesis(
            load_source(source, **self.how),
            Selection(documents, balance=task.chosen_recipe.balance, seed=task.seed),
            LanguageMix.parse(task.langs) if generated else LanguageMix(),
            index=str(self.folder / BEFORE) if generated else None,
            held_out=list_wordings(self.collection),
            **self.how,
        )
        return synthesis.run(subset, folder, progress=self.progress).output

    def _split(self, groups: Mapping[str, str]) -> tuple[set[str], set[str]]:
        """The documents of what is held out, and the others; translations together."""
        held = set(draw_share(sorted(set(groups.values())), *HELD_OUT, self.task.seed, "held out"))
        held_out = {id for id, group in groups.items() if group in held}
        return held_out, groups.keys() - held_out

    def _write_examples(
        self, made: Sequence[Made], documents: set[str], heads: Container[str], chosen: set[str]
    ) -> str:
        """The file of examples: questions about the documents, with negatives and scores where they are to be had.

        None is one of the `heads`, of which questions about other documents were made where vectors took these for
        translations.
        """
        path = self.folder / "examples.jsonl.gz"
        if path.exists():
            return str(path)
        questions = [[query for query in each.ask_about(documents) if query.text not in heads] for each in made]
        room = self._keep("judge-seconds", lambda: JUDGE_SHARE * self.left) / max(1, sum(map(len, questions)))
        files = []
        for number, (each, asked) in enumerate(zip(made, questions, strict=True)):
            drawn = draw_questions(asked, self.task.seed)
            if self.task.judge is not None and drawn:
                judge = partial(self._try_judge, each, drawn, chosen, number)
                drawn = drawn[: self._afford(f"judge-{number}", len(drawn), judge, room * len(drawn))]
            if drawn:
                files.append(self._mine(each, drawn, chosen, str(number)))
            self._note_time()
        source = {"collection": self.collection.name, "adaptation": self.task.describe(self.collection)}
        write_examples(path, chain.from_iterable(load_examples(str(file)) for file in files), source)
        return str(path)

    def _mine(self, made: Made, asked: Sequence[Item], chosen: set[str], name: str) -> Path:
        """The questions of a source with what the base finds for them, judged where there is a judge.

        Hard negatives without a judge are for documents that are trained on as they are: those that lost their title to
        the question would be told from the others by that.
        """
        folder = self.folder / "mined"
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.jsonl.gz"
        if path.exists():
            return path
        judged = {query.id: made.judged[query.id] for query in asked}
        subset = Subset(self.collection.name, self.collection, chosen, asked, judged, made.documents)
        whole = load_source(made.source, **self.how).whole
        negatives = self.task.chosen_recipe.negatives
        if self.task.judge is None and not (whole and negatives):
            write_examples(path, _join(made, asked), {"source": made.source})
            return path
        mining = Mining(
            str(self.folder / BEFORE), negatives=negatives, translations="id",
            first=1 if self.task.judge else FIRST, margin=None if self.task.judge else Mining.margin,
            score=self.task.judge, seed=self.task.seed, force=True,
            **self.how,
        )  # fmt: skip
        mining.run(subset, path, progress=self.progress)
        return path

    def _compare(self, held: Subset, spec: str, chosen: set[str]) -> dict[str, Compared]:
        """By the collection's own judgements where it has some, and by questions about documents that were held out."""
        specs = {BEFORE: self.task.base, AFTER: spec}
        parts = {"held out": held} if held.asked else {}
        if self.judged:
            own = Subset(self.collection.name, self.collection, chosen, self.asked, self.judged)
            parts = {"judged": own, **parts}
        if not parts:
            raise InputError(f"{self.collection.name} is too small: no question is left to compare on")
        return {
            name: compare(
                part, len(chosen), specs, self.folder / "compared" / name.replace(" ", "-"), seed=self.task.seed,
                progress=self.progress, **self.how,
            )
            for name, part in parts.items()
        }  # fmt: skip

    def _try_judge(self, made: Made, drawn: Sequence[Item], chosen: set[str], number: int, some: int) -> None:
        self._mine(made, drawn[:some], chosen, f"trial-{number}-{some}")

    def _afford(self, name: str, wanted: int, work: Callable[[int], Any], room: float) -> int:
        """How many of what a model works on fit in so many seconds: a few are timed first, and a few more.

        What the difference does not hold is loading, which comes once.
        """

        def plan() -> int:
            seconds = []
            for some in TRIALS:
                started = time.monotonic()
                work(min(some, wanted))
                seconds.append(time.monotonic() - started)
            each = max(seconds[1] - seconds[0], seconds[1] / TRIALS[1] / 10) / (TRIALS[1] - TRIALS[0])
            return max(min(TRIALS[1], wanted), min(wanted, int(room / each)))

        found = int(self._keep(name, plan))
        if found < wanted:
            self.notes.append(f"{name.partition('-')[0]}: {found} of {wanted}, for which there was time")
        return found

    def _keep(self, name: str, make: Callable[[], Any]) -> Any:
        """A value of this work, made once."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_json(path, make())
        return read_json(path)

    def _note_time(self) -> None:
        write_json(self.folder / "spent.json", round(self.spent, 1))


def draw_questions(asked: Sequence[Item], seed: int) -> list[Item]:
    """The questions in the order of a lot, so that the first of them are a sample."""
    return sorted(asked, key=lambda each: hash_text(f"{seed}\0{each.id}"))


def _join(made: Made, asked: Sequence[Item]) -> Iterator[Example]:
    for query in asked:
        yield Example(
            Item(query.id, query.text, lang=query.lang),
            tuple(replace(made.documents[id], meta={}) for id, grade in made.judged[query.id].items() if grade > 0),
        )


def _read_judgements(collection: Collection) -> tuple[list[Item], Qrels]:
    """The judged topics and their judgements; none where the collection has none."""
    with suppress(MissingPart):
        return select_judged(collection)
    return [], {}


def _name_result(spec: str, output: Path) -> str:
    found = Spec.parse(spec)
    return str(replace(found, checkpoint=str(output.resolve())))


def holds_costly(folder: Path) -> bool:
    """Whether something is in it that took a model its time: questions, scores, or a checkpoint."""
    return any(path for pattern in COSTLY for path in folder.glob(pattern))
