"""Training data made into other training data: scored by a teacher, in other languages, in another toolkit's format."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import InputError, note_kept
from ...items import windows
from ...multilingual.collections.registry import load_collection
from ...pipeline import Progress, advance, show_nothing, watch
from .base import Making
from .example import Example
from .examples import Examples, name_pairs, write_as, write_examples
from .formats import OwnFormat, load_format
from .kept_work import keep_work
from .parallel import LanguageRecipe, ParallelDocuments
from .teacher import Hire, Teacher, plan_teacher

WINDOW = 64  # examples that are scored together

_NOTES = {
    "without_translation": "examples have no positive in the new languages, and are left out",
    "documents_without_translation": "documents have no translation, and are left out",
}


@dataclass(frozen=True)
class Converted:
    """What was written: where, its card (of another format counts), and what it cost."""

    output: Path
    card: Mapping[str, Any]
    counts: Mapping[str, int]
    cost: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {"output": str(self.output), **self.card, "cost": dict(self.cost)}

    def __str__(self) -> str:
        lines = f" in {self.card['lines']} lines" if "lines" in self.card else ""
        said = f"{self.output}: {self.card['examples']} examples{lines}, in {self.cost['seconds']:.1f} s"
        pairs = self.card.get("pairs")
        return f"{said}\n{name_pairs(pairs)}" if pairs else said

    @property
    def notes(self) -> list[str]:
        """What people should know of how it went, a line each."""
        left = self.card.get("left_out")
        fewer = [f"{left} examples became no line: they have too few negatives"] * bool(left)
        return fewer + [f"{self.counts[kind]} {what}" for kind, what in _NOTES.items() if self.counts.get(kind)]


@dataclass(frozen=True)
class Conversion:
    """What becomes of examples, in this order: scores of a teacher, other languages, another format.

    `score` is a reranker's SPEC whose prompt shows one passage. `recipe` is a `parallel.LanguageRecipe`; its
    translations are documents of the collections `parallel`, told by ids or as `by` says. `form` is a format of
    `formats.FORMATS`.
    """

    score: str | None = None
    recipe: str | None = None
    parallel: Sequence[str] = ()
    by: str = ""
    form: str = "crosslens"
    seed: int = 0
    device: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        load_format(self.form)
        _ = self._hire
        if self._recipe and not self.parallel:
            raise InputError(f"{self.recipe} needs the documents in other languages: name a collection by --parallel")
        if (self.parallel or self.by) and not self._recipe:
            raise InputError("parallel documents are for a recipe: add --recipe, as in translate-train?to=rus")

    @cached_property
    def _hire(self) -> Hire | None:
        if self.score is None:
            return None
        return plan_teacher(self.score, "--score", device=self.device, trust_remote_code=self.trust_remote_code)

    @cached_property
    def _recipe(self) -> LanguageRecipe | None:
        return LanguageRecipe.parse(self.recipe) if self.recipe is not None else None

    def run(self, examples: Examples, output: str | Path, *, progress: Progress = show_nothing) -> Converted:
        """Write the file `output`, streaming, and a card beside it where the format is our own.

        A teacher's answers are kept in `.OUTPUT.partial/` until all is done; killed, the same call goes on from there.
        """
        output, started, form = Path(output), time.perf_counter(), load_format(self.form)
        with keep_work(output) as journal:
            making = Making(self.seed, journal=journal)
            pairs = int(examples.card["positives"] + examples.card["negatives"])
            teacher = self._hire(journal, pairs) if self._hire else None
            done = 0
            source: dict[str, Any] = {**examples.source, "data_sha256": examples.card["sha256"]}

            def watched() -> Iterator[Example]:
                nonlocal done
                for window in windows(examples, WINDOW):
                    yield from window if teacher is None else _score(window, teacher)
                    done += len(window)
                    advance(len(window))
                if teacher is not None:
                    source["score"] = {**teacher.describe(), "counts": dict(teacher.counts)}

            made: Iterable[Example] = watched()
            if self._recipe:
                made = self._recipe.apply(made, self._read_parallel(examples, self._recipe), making)
                source["languages"] = {**self._recipe.describe(), "parallel": list(self.parallel), "by": self.by}
                source["languages"]["seed"] = self.seed
            try:
                with progress("converting", len(examples)) as watcher, watch(watcher):
                    own = isinstance(form, OwnFormat)
                    card = write_examples(output, made, source) if own else write_as(output, made, form)
            except BaseException as stop:
                if done and teacher is not None:
                    note_kept(stop, f"the scores of {done} examples")
                raise
            usage = journal.counted + (teacher.usage if teacher is not None else making.usage)
        cost = {"seconds": round(time.perf_counter() - started, 1), **dict(sorted(usage.items()))}
        return Converted(output, card, dict(+making.count), cost)

    def _read_parallel(self, examples: Examples, recipe: LanguageRecipe) -> ParallelDocuments:
        return ParallelDocuments.read([*map(load_collection, self.parallel)], self.by, examples, recipe.to)


def _score(window: Sequence[Example], teacher: Teacher) -> Iterator[Example]:
    rows = teacher.score([(example.query, example.documents) for example in window])
    return (replace(example, scores=tuple(row)) for example, row in zip(window, rows, strict=True))
