"""`crosslens train ranker`: a base, examples and a recipe become a checkpoint that judges load as any other."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from ...errors import InputError
from ...multilingual.judges import load_judge
from ...pipeline import Progress, show_nothing
from ..attention import choose_attention
from ..card import Trained, find_trained, write_card
from ..data.examples import Example, Examples
from ..data.held_out import warn_of_common
from ..data.stored import StoredExamples
from ..loop import find_checkpoint, keep_quiet
from ..processes import join_processes
from ..session import OPEN, open_work, require_packages
from ..weights import drop_states
from .lessons import Lesson, ScoreLesson, TextLesson
from .loop import (
    EpochCallback,
    LessonModel,
    RankerLoop,
    RankerTrainer,
    TaskDataset,
    choose_budget,
    plan_ranker_arguments,
)
from .losses import LABELLED, SCORED, make_loss
from .opening import RankerBase, open_ranker
from .recipe import RankerRecipe
from .thoughts import JOURNAL, ThoughtLesson, write_thoughts
from .weights import add_adapters, free_weights, plan_adapters, save_ranker

PACKAGES = ("peft", "sentence_transformers", "accelerate", "datasets")
DEV, CUTOFF = 200, 10  # queries of the dev data that are ranked at most, and the ranks that count
PROMPT_TOKENS = 100  # of a question beside its passage


@dataclass(frozen=True)
class RankerTraining:
    """A ranker to be trained: what on, from what, how, and where to.

    `base` is a SPEC `PROMPT@FAMILY:CHECKPOINT`. Work is kept in `.NAME.partial` beside the output, with which the same
    call goes on after a kill; the output appears whole. `dev` is ranked every `recipe.check` steps, and the
    best weights are the result.
    """

    examples: Examples
    base: str
    output: Path
    recipe: RankerRecipe = RankerRecipe()  # noqa: RUF009 - it is frozen
    dev: Examples | None = None
    device: str = "auto"
    trust_remote_code: bool = False

    def run(self, progress: Progress = show_nothing) -> Trained:
        """Train; `InputError` for a base or data that cannot be trained on, and for a loss that is no number."""
        require_packages(*PACKAGES, *(("trl",) if self.recipe.method == "grpo" else ()))
        call, processes = self.describe(), join_processes(self.device)
        if found := find_trained(self.output, call, self.recipe):
            return found
        self.examples.check_enough(self.recipe.batch)
        dev = self._read_dev()
        own = processes.device
        device = self.device if processes.num_processes == 1 else str(own) if own.type == "cuda" else own.type
        base = open_ranker(
            self.base, prompt=self.recipe.prompt, device=device, trust_remote_code=self.trust_remote_code,
            seed=self.recipe.seed,
        )  # fmt: skip
        work = self.output.with_name(f".{self.output.name}.partial")
        begun = {**call, "weights": base.weights}
        with open_work(work, begun, lambda: holds_training(work)) if processes.is_main_process else nullcontext():
            processes.wait_for_everyone()
            with closing(StoredExamples(self.examples, work)) as examples:
                trainer, tuned = self._train(base, examples, dev, work, progress)
            if processes.is_main_process:
                self._write(base, trainer, tuned, dev, work / "result", call)
                (work / "result").rename(self.output)
        if processes.is_main_process:
            shutil.rmtree(work)
        processes.wait_for_everyone()
        return Trained.read(self.output)

    def describe(self) -> dict[str, Any]:
        """What decides the result, but for when it ends, JSON-able."""
        return {
            "kind": "ranker", "base": self.base, "data": self.examples.card.get("sha256", ""),
            "dev": self.dev.card.get("sha256", "") if self.dev else None,
            "recipe": {key: value for key, value in self.recipe.to_json().items() if key not in OPEN},
        }  # fmt: skip

    def _read_dev(self) -> list[Example]:
        if self.dev is None:
            return []
        if self.dev.name == self.examples.name:
            raise InputError(f"{self.dev.name} is what is trained on: dev data must be other data")
        dev = list(islice((example for example in self.dev if example.negatives), DEV))
        if not dev:
            raise InputError(
                f"{self.dev.name} has no negatives to rank its positives among: `crosslens mine` finds some"
            )
        warn_of_common((each.query for each in dev), self.dev.name, (each.query for each in self.examples))
        return dev

    def _train(
        self, base: RankerBase, examples: StoredExamples, dev: Sequence[Example], work: Path, progress: Progress
    ) -> tuple[RankerLoop, Any]:
        """The trainer once it is done, and the model with adapters, where there are some."""
        recipe, tuned = self.recipe, None
        adapters = plan_adapters(base, recipe)
        drop_states(base.judge.model, 0.0 if recipe.lora else recipe.dropout)
        if adapters is None:
            free_weights(base, recipe)
        elif recipe.method != "grpo":  # there trl adds them
            tuned = add_adapters(base, adapters, recipe.seed)
        if recipe.checkpointing:
            base.judge.model.gradient_checkpointing_enable()
            base.judge.model.enable_input_require_grads()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer: RankerLoop
        if recipe.method == "grpo":
            from .grpo import make_grpo_trainer

            total = recipe.steps or math.ceil(len(examples) * recipe.epochs / recipe.batch)
            with keep_quiet():
                trainer = make_grpo_trainer(base, adapters, recipe, examples, work, total, bool(dev))
            tuned = adapters and trainer.model
        else:
            lesson = choose_lesson(base, recipe, self.examples, self._find_thoughts(base, examples, work))
            if isinstance(lesson, ThoughtLesson) and recipe.teacher:
                examples.keep(lambda example: example.query.id in lesson.thoughts)
            dataset = TaskDataset(examples, lesson, recipe.seed)
            total = recipe.steps or math.ceil(math.ceil(len(examples) / recipe.batch) * recipe.epochs)
            trainer = self._make_trainer(base, dataset, work, total, bool(dev))
        trainer.follow(recipe, (lambda: measure_ndcg(base, dev, CUTOFF)) if dev else None)
        trainer.run(progress)
        return trainer, tuned

    def _find_thoughts(self, base: RankerBase, examples: Sequence[Example], work: Path) -> Path | None:
        """The file of thoughts that the recipe names, or that its teacher writes now."""
        if not self.recipe.teacher or not base.prompt.think:
            return Path(self.recipe.thoughts) if self.recipe.thoughts else None
        if (path := work / "thoughts.jsonl").exists():
            return path
        judge = load_judge(self.recipe.teacher, device=self.device, trust_remote_code=self.trust_remote_code)
        return write_thoughts(base.prompt, judge, examples, self.recipe, work)

    def _make_trainer(
        self, base: RankerBase, dataset: TaskDataset, folder: Path, total: int, watched: bool
    ) -> RankerTrainer:
        recipe, device = self.recipe, base.judge.device
        if base.prompt.most == 1:
            choose_attention(base.judge.model, device, base.judge.passage_tokens + PROMPT_TOKENS)
        arguments = plan_ranker_arguments(recipe, folder, device, total, watched)
        return RankerTrainer(
            budget=choose_budget(recipe.micro_tokens, device),
            model=LessonModel(base.judge.model, dataset.lesson),
            args=transformers.TrainingArguments(**arguments),
            train_dataset=dataset,
            eval_dataset=dataset if watched else None,  # it asks for one; what measures has its own
            data_collator=list,
            callbacks=[EpochCallback(dataset)],
        )

    def _write(
        self, base: RankerBase, trainer: RankerLoop, tuned: Any, dev: Sequence[Example], place: Path,
        call: dict[str, Any],
    ) -> None:  # fmt: skip
        shutil.rmtree(place, ignore_errors=True)  # of a session that was killed while it wrote
        base.judge.model.eval()
        with keep_quiet():
            save_ranker(base, tuned, self.recipe.merge, place)
        if (thoughts := place.with_name("thoughts.jsonl")).exists():
            shutil.copy(thoughts, place)
        watched = {
            "collection": self.dev.name, "measure": f"nDCG@{CUTOFF}", "queries": len(dev),
            "documents": sum(len(each.documents) for each in dev),
        } if self.dev else None  # fmt: skip
        write_card(
            place, trainer, call, base.judge.device, watched,
            kind="ranker",
            spec=base.write_system(self.output),
            prompt=base.prompt.name,
            base={"spec": base.written, "revision": base.weights},
            examples={"name": self.examples.name, **{k: v for k, v in self.examples.card.items() if k != "source"}},
            micro_tokens=trainer.budget,
        )  # fmt: skip


def holds_training(folder: Path) -> bool:
    """Whether there is something to go on with: a checkpoint, or thoughts that a teacher wrote."""
    return find_checkpoint(folder) is not None or (folder / JOURNAL).exists()


def choose_lesson(base: RankerBase, recipe: RankerRecipe, examples: Examples, thoughts: Path | None = None) -> Lesson:
    """What a prompt is taught by; `InputError` where the loss is not for it, or the data lacks what that needs."""
    prompt, loss = base.prompt, recipe.loss
    scored = examples.card["scored"]
    if prompt.think:
        if thoughts is None:
            raise InputError(
                f"the prompt {prompt.name} thinks before it answers: give `thoughts`, a file of thoughts to learn, or "
                f"a `teacher` that writes them, or take method grpo"
            )
        return ThoughtLesson(prompt, base.judge, thoughts)
    if recipe.thoughts or recipe.teacher:
        raise InputError(
            f"the prompt {prompt.name} does not think: leave thoughts and teacher out, or take rank1 or rank-r1"
        )
    if prompt.asks == "likelihood" or (prompt.asks == "generate" and prompt.most == 1):
        raise InputError(f"the prompt {prompt.name} asks to {prompt.asks} about one passage, which is not trained here")
    if prompt.asks == "generate":
        if loss not in ("auto", "text"):
            raise InputError(f"the prompt {prompt.name} says a ranking: its loss is text, not {loss}")
        if not scored:
            _require_negatives(examples, "text")
        return TextLesson(prompt, base.judge, recipe.group)
    if loss == "text":
        raise InputError(f"the prompt {prompt.name} chooses or scores and says no text: take softmax, bce, kl, ...")
    if loss == "auto":
        loss = "kl" if scored == len(examples) else "softmax"
    if loss in SCORED and scored < len(examples):
        raise InputError(
            f"{examples.name}: {len(examples) - scored} of {len(examples)} examples have no scores, and the loss "
            f"{loss} needs a teacher's: `crosslens mine --score`, or take softmax"
        )
    if prompt.most > 1 and loss in ("bce", "mse", "margin-mse"):
        raise InputError(f"the prompt {prompt.name} chooses among passages: take softmax or kl, not {loss}")
    if loss == "bce" and prompt.values:
        raise InputError(f"the prompt {prompt.name} gives grades, not log-odds: take softmax, kl, lambda, ..., not bce")
    if loss in LABELLED:
        _require_negatives(examples, loss)
    return ScoreLesson(prompt, base.judge, make_loss(loss, recipe.teacher_temperature), loss, recipe.group)


def measure_ndcg(base: RankerBase, dev: Sequence[Example], k: int = CUTOFF) -> float:
    """Mean nDCG@k 0..1 of positives among each query's documents, in the order in which the judge ranks them."""
    shown = [
        (each.query, each.documents[: base.prompt.most] if base.prompt.most > 1 else each.documents) for each in dev
    ]
    found = []
    for example, scores in zip(dev, base.prompt.score(base.judge, shown), strict=True):
        gains = np.arange(len(scores)) < len(example.positives)
        discounts = 1 / np.log2(np.arange(len(scores)) + 2)
        discounts[k:] = 0
        # Ties against the positives, which stand first.
        order = np.lexsort((gains, -scores))
        found.append(float(gains[order] @ discounts / (np.sort(gains)[::-1] @ discounts)))
    return float(np.mean(found))


def _require_negatives(examples: Examples, loss: str) -> None:
    if not examples.card["negatives"]:
        raise InputError(
            f"{examples.name} has no negatives, and the loss {loss} sets positives apart from them: `crosslens mine`"
        )
