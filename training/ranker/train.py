"""`crosslens train ranker`: a base, examples and a recipe become a checkpoint that judges load as any other."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from ...errors import InputError, note_kept
from ...files import lock_directory, make_directory, write_json
from ...multilingual.judges import load_judge
from ...pipeline import Progress, show_nothing
from ..attention import choose_attention
from ..data.examples import Example, Examples
from ..disk import explain_full_disk
from ..session import begin_work, measure_memory, require_packages
from ..weights import drop_states
from .lessons import Lesson, ScoreLesson, TextLesson
from .loop import (
    COMPLETE,
    LessonModel,
    RankerTrainer,
    TaskDataset,
    Watch,
    choose_budget,
    find_checkpoint,
    keep_quiet,
    plan_arguments,
    summarize_curve,
)
from .losses import LABELLED, SCORED, make_loss
from .opening import CARD, RankerBase, open_ranker
from .recipe import RankerRecipe
from .thoughts import ThoughtLesson, write_thoughts
from .weights import add_adapters, free_weights, plan_adapters, save_ranker

PACKAGES = ("peft", "sentence_transformers", "accelerate", "datasets")
DEV = 200  # queries of the dev data that are ranked at most
PROMPT_TOKENS = 100  # of a question beside its passage


@dataclass(frozen=True)
class TrainedRanker:
    """What training a ranker came to; `system` is the SPEC of the reranker that it is."""

    checkpoint: str
    system: str
    steps: int
    seconds: float
    peak_memory: int
    curve: Sequence[dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        """A dict for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        losses = [point["loss"] for point in self.curve if "loss" in point]
        rewards = [point["reward"] for point in self.curve if "reward" in point]
        what, values = ("reward", rewards) if rewards else ("loss", losses)
        course = f", {what} {values[0]:.4g} to {values[-1]:.4g}" if values else ""
        ranked = [point["eval_ndcg"] for point in self.curve if "eval_ndcg" in point]
        dev = f", dev nDCG@10 at best {max(ranked):.3f}" if ranked else ""
        return (
            f"{self.checkpoint}: {self.steps} steps in {self.seconds:.0f} s{course}{dev}\n  rerank with {self.system}"
        )


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

    def run(self, progress: Progress = show_nothing) -> TrainedRanker:
        """Train; `InputError` for a base or data that cannot be trained on, and for a loss that is no number."""
        require_packages(*PACKAGES, *(("trl",) if self.recipe.method == "grpo" else ()))
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise InputError(f"{self.output} is there already: remove it, or name another output")
        self.examples.check_enough(self.recipe.batch)
        dev = self._read_dev()
        processes = join_processes(self.device)
        own = processes.device
        device = self.device if processes.num_processes == 1 else str(own) if own.type == "cuda" else own.type
        base = open_ranker(
            self.base, prompt=self.recipe.prompt, device=device, trust_remote_code=self.trust_remote_code,
            seed=self.recipe.seed,
        )  # fmt: skip
        examples = list(self.examples)
        work = self.output.with_name(f".{self.output.name}.partial")
        make_directory(work)
        leads = processes.is_main_process
        with lock_directory(work) if leads else nullcontext(), explain_full_disk(work):
            try:
                if leads:
                    begin_work(work, self._describe_call(base))
                processes.wait_for_everyone()
                trained = self._train(base, examples, dev, work, progress, processes)
            except BaseException as stop:
                if found := find_checkpoint(work / "checkpoints") if leads else None:
                    note_kept(stop, f"{Path(found).name} in {work}")
                elif leads and not (work / "thoughts.journal").exists():
                    shutil.rmtree(work)  # nothing to go on with
                raise
            processes.wait_for_everyone()
            if leads:
                (work / "result").rename(self.output)
        if leads:
            shutil.rmtree(work)
        return trained

    def _read_dev(self) -> list[Example]:
        if self.dev is None:
            return []
        if self.dev.name == self.examples.name:
            raise InputError(f"{self.dev.name} is what is trained on: dev data must be other data")
        dev = [example for example in self.dev if example.negatives][:DEV]
        if not dev:
            raise InputError(
                f"{self.dev.name} has no negatives to rank its positives among: `crosslens mine` finds some"
            )
        return dev

    def _describe_call(self, base: RankerBase) -> dict[str, Any]:
        return {
            "base": base.written, "weights": base.weights, "prompt": base.prompt.name,
            "data": self.examples.card.get("sha256", ""), "recipe": asdict(self.recipe),
        }  # fmt: skip

    def _train(
        self,
        base: RankerBase,
        examples: Sequence[Example],
        dev: Sequence[Example],
        work: Path,
        progress: Progress,
        processes: Any,
    ) -> TrainedRanker:
        recipe, folder = self.recipe, work / "checkpoints"
        adapters, tuned = plan_adapters(base, recipe), None
        drop_states(base.judge.model, recipe.dropout)
        if adapters is None:
            free_weights(base, recipe)
        elif recipe.method != "grpo":  # there trl adds them
            tuned = add_adapters(base, adapters, recipe.seed)
        if recipe.checkpointing:
            base.judge.model.gradient_checkpointing_enable()
            base.judge.model.enable_input_require_grads()
        resumed = find_checkpoint(folder)
        spent = float(Path(resumed, COMPLETE).read_text() or 0) if resumed else 0.0
        measure = (lambda: measure_ndcg(base, dev)) if dev else None
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if recipe.method == "grpo":
            from .grpo import make_grpo_trainer

            total = recipe.steps or math.ceil(len(examples) * recipe.epochs / recipe.batch)
            dataset = None
        else:
            lesson = choose_lesson(base, recipe, self.examples, self._find_thoughts(base, examples, work))
            if isinstance(lesson, ThoughtLesson) and recipe.teacher:
                examples = [example for example in examples if example.query.id in lesson.thoughts]
            dataset = TaskDataset(examples, lesson, recipe.seed)
            total = recipe.steps or math.ceil(math.ceil(len(examples) / recipe.batch) * recipe.epochs)
        with keep_quiet(), progress("training", total) as show:
            watch = Watch(recipe.minutes, spent, show, dataset)
            if dataset is None:
                trainer = make_grpo_trainer(base, adapters, recipe, examples, folder, total, watch, measure)
                tuned = adapters and trainer.model
            else:
                trainer = self._make_trainer(base, dataset, folder, total, watch, measure)
            trainer.remove_callback(transformers.PrinterCallback)  # which prints on stdout
            trainer.train(resume_from_checkpoint=resumed)
        steps, curve = int(trainer.state.global_step), summarize_curve(trainer.state.log_history)
        place = work / "result"
        base.judge.model.eval()
        done = TrainedRanker(
            str(self.output),
            base.write_system(self.output),
            steps,
            round(watch.seconds, 1),
            measure_memory(base.judge.device),
            curve,
        )
        if not processes.is_main_process:
            return done
        shutil.rmtree(place, ignore_errors=True)  # of a session that was killed while it wrote
        with keep_quiet():
            save_ranker(base, tuned, recipe.merge, place)
        if (thoughts := work / "thoughts.jsonl").exists():
            shutil.copy(thoughts, place)
        write_json(place / CARD, self._describe(base, done))
        return done

    def _find_thoughts(self, base: RankerBase, examples: Sequence[Example], work: Path) -> Path | None:
        """The file of thoughts that the recipe names, or that its teacher writes now."""
        if not self.recipe.teacher or not base.prompt.think:
            return Path(self.recipe.thoughts) if self.recipe.thoughts else None
        if (path := work / "thoughts.jsonl").exists():
            return path
        judge = load_judge(self.recipe.teacher, device=self.device, trust_remote_code=self.trust_remote_code)
        return write_thoughts(base.prompt, judge, examples, self.recipe, work)

    def _make_trainer(
        self, base: RankerBase, dataset: TaskDataset, folder: Path, total: int, watch: Watch, measure: Any
    ) -> RankerTrainer:
        recipe, device = self.recipe, base.judge.device
        if base.prompt.most == 1:
            choose_attention(base.judge.model, device, base.judge.passage_tokens + PROMPT_TOKENS)
        callbacks: list[Any] = [watch]
        if measure is not None:
            callbacks.append(transformers.EarlyStoppingCallback(recipe.patience))
        return RankerTrainer(
            budget=choose_budget(recipe.micro_tokens, device),
            measure=measure,
            model=LessonModel(base.judge.model, dataset.lesson),
            args=transformers.TrainingArguments(**plan_arguments(recipe, folder, device, total, measure is not None)),
            train_dataset=dataset,
            eval_dataset=None if measure is None else dataset,  # it asks for one; `measure` has its own
            data_collator=list,
            callbacks=callbacks,
        )

    def _describe(self, base: RankerBase, done: TrainedRanker) -> dict[str, Any]:
        packages = ("crosslens", "torch", "transformers", "peft", "sentence-transformers", "accelerate")
        return {
            "format": 1,
            "kind": "ranker",
            "prompt": base.prompt.name,
            "base": base.written,
            "weights": base.weights,
            "recipe": asdict(self.recipe),
            "data": {"name": self.examples.name, **{k: v for k, v in self.examples.card.items() if k != "source"}},
            "versions": {name: _find_version(name) for name in packages},
            **done.to_json(),
        }


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


def measure_ndcg(base: RankerBase, dev: Sequence[Example], k: int = 10) -> float:
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


def join_processes(device: str) -> Any:
    """accelerate's state of the processes that train together, one a device (`accelerate launch`, `torchrun`)."""
    from accelerate import PartialState

    return PartialState(cpu=device.startswith("cpu"))


def _require_negatives(examples: Examples, loss: str) -> None:
    if not examples.card["negatives"]:
        raise InputError(
            f"{examples.name} has no negatives, and the loss {loss} sets positives apart from them: `crosslens mine`"
        )


def _find_version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return ""
