"""GRPO through trl: prompts of inference, rewards of what is said, checkpoints; and thoughts that are learnt."""

from __future__ import annotations

import json
import random
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
import transformers
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges import BaseJudge, Completion
from crosslens.training.data.examples import Example, load_examples, write_examples
from crosslens.training.ranker import grpo, train
from crosslens.training.ranker.lessons import draw_question
from crosslens.training.ranker.opening import open_ranker
from crosslens.training.ranker.recipe import RankerRecipe
from crosslens.training.ranker.rewards import reward_rank
from crosslens.training.ranker.train import RankerTraining
from tiny.decoders import save_llm

QUICK = {
    "method": "grpo",
    "batch": 2,
    "group": 3,
    "samples": 4,
    "thinking": 24,
    "precision": "float32",
    "steps": 2,
    "check": 1,
}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return make_examples(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return make_examples(tmp_path_factory.mktemp("other"))


def make_examples(folder: Path):
    documents = [Item(f"d{n}", f"The {name} sleeps.", lang="eng") for n, name in enumerate(("cat", "dog", "owl"))]
    made = [
        Example(
            Item(f"q{n}", f"Who sleeps, number {n}?"),
            (documents[n % 3],),
            (documents[(n + 1) % 3], documents[(n + 2) % 3]),
        )
        for n in range(4)
    ]
    path = folder / "examples.jsonl"
    write_examples(path, made, {"made": "here"})
    return load_examples(path)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """A Qwen3 with a chat template."""
    where = save_llm(tmp_path_factory.mktemp("chat"), "Qwen3", "$A", max_position_embeddings=2048)
    tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    )
    tokenizer.save_pretrained(where)
    return where


def test_rewards_are_those_of_the_answers_and_prompts_those_of_inference(chat, examples, tmp_path, monkeypatch):
    """What is said is laid down by hand: trl's mean reward is that of the answers, and ids are those of the judge."""
    said = [
        "so </think> <answer>[1]</answer>",
        "so </think> <answer>[2]</answer>",
        "[1]",
        "so </think> <answer>[3]</answer>",
    ]
    defined = grpo.define_trainer()
    shown: list[list[int]] = []

    class Told(defined):  # type: ignore[misc, valid-type]
        def _generate_single_turn(self, prompt_ids, images, fields, samples, **more):
            shown.extend(prompt_ids)
            rows = [
                self.processing_class(said[n % 4], add_special_tokens=False)["input_ids"]
                for n in range(len(prompt_ids))
            ]
            return [[*row, self.processing_class.eos_token_id] for row in rows], None

    monkeypatch.setattr(grpo, "define_trainer", lambda: Told)
    recipe = RankerRecipe(**{**QUICK, "lora": 4, "format_weight": 0.5})
    base = f"rank-r1@hf:{chat}"
    done = RankerTraining(examples, base, tmp_path / "out", recipe, device="cpu").run()
    # Of four answers three are in the format and one of these names the best document.
    rewards = [point["reward"] for point in done.card["curve"] if "reward" in point]
    assert rewards == pytest.approx([0.25 + 0.5 * 0.75] * 2)
    opened = open_ranker(base, device="cpu")
    asked = grpo.Questions(opened, list(examples), recipe, 24)
    ids = [asked.tokenize(number) for number in range(len(asked))]
    starts, texts = opened.judge.prepare_prompts(
        [each.prompt.message(each.drawn.query, each.drawn.documents) for each in asked], 24
    )
    assert {*map(tuple, shown)} <= {*map(tuple, ids)} == {*starts}
    assert texts[0].endswith("<think>")
    assert sum(reward_rank(each, said[0]) for each in asked) + sum(reward_rank(each, said[1]) for each in asked) <= 4
    assert (tmp_path / "out/model.safetensors").exists()


def test_answers_are_generated_and_all_weights_trained(tiny_judge, examples, other, tmp_path, monkeypatch):
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    def compute(ctx, states, *more):
        scored.append(len(states))
        return genuine(ctx, states, *more)

    genuine, scored = ChunkedLogProbFunction.forward, []
    monkeypatch.setattr(ChunkedLogProbFunction, "forward", staticmethod(compute))
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", None)  # nothing is told to anybody
    recipe = RankerRecipe(**{**QUICK, "divergence": 0.01, "format_weight": 1.0, "micro_tokens": 10_000})
    done = RankerTraining(examples, f"setwise@hf:{tiny_judge}", tmp_path / "out", recipe, dev=other, device="cpu").run()
    assert done.card["steps"] == 2
    answers = recipe.batch * recipe.samples
    assert 0 < max(scored) <= answers * recipe.thinking  # the tokens of prompts are not among them
    assert all(0 <= point["reward"] <= 2 for point in done.card["curve"])
    assert [check["step"] for check in done.card["dev"]["checks"]] == [1, 2]
    page = (done.output / "training.html").read_text()
    for title in ("Reward", "Spread of rewards", "KL to the base"):
        assert f"<figcaption>{title}</figcaption>" in page


def test_out_of_memory_halves_what_goes_through_at_once_and_changes_no_weight(
    tiny_judge, examples, tmp_path, monkeypatch
):
    """Of answers that are laid down: learnt from all at once, and in parts."""
    from trl import GRPOTrainer

    def write(self, prompt_ids, *_: object, **__: object):
        if len(prompt_ids) > limits["written"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        said = ("1", "2", "3", "no")
        return [
            self.processing_class(said[sum(ids) % 4 - n % 2])["input_ids"] for n, ids in enumerate(prompt_ids)
        ], None

    def learn(self, model, answers, **_: object):
        sizes.append(len(answers["completion_ids"]))
        if sizes[-1] > limits["learnt"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return genuine(self, model, answers)

    genuine, sizes, limits, weights = GRPOTrainer.compute_loss, [], {}, [read_weights(tiny_judge)]
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", write)
    monkeypatch.setattr(GRPOTrainer, "compute_loss", learn)
    recipe = RankerRecipe(**{**QUICK, "divergence": 0.0, "micro_tokens": 10_000, "learning_rate": 1e-2, "warmup": 0.0})
    base = f"setwise@hf:{tiny_judge}"
    for most in (8, 3):
        limits.update(written=most, learnt=most)
        done = RankerTraining(examples, base, tmp_path / f"most-{most}", recipe, device="cpu").run()
        weights.append(read_weights(done.output))
    assert sizes[:4] == [8, 8, 8, 4]
    assert max(sizes[4:]) <= 2
    before, whole, less = weights
    moved = sum((before[name] - whole[name]).abs().sum() for name in before)
    assert sum((less[name] - whole[name]).abs().sum() for name in before) < 0.01 * moved
    limits["learnt"] = 0
    with pytest.raises(InputError, match=r"out of memory with 1 answers of \d+ tokens at once: lower micro_tokens"):
        RankerTraining(examples, base, tmp_path / "none", recipe, device="cpu").run()
    assert not (tmp_path / ".none.partial").exists()


def read_weights(folder) -> dict[str, torch.Tensor]:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").state_dict()


def test_a_loss_that_is_no_number_stops_it_and_the_last_checkpoint_is_the_result_where_asked(
    tiny_judge, examples, tmp_path, monkeypatch
):
    from trl import GRPOTrainer

    genuine = GRPOTrainer.compute_loss

    def lose(self, *given, **more):
        return genuine(self, *given, **more) * (torch.nan if self.state.global_step == 1 else 1)

    monkeypatch.setattr(GRPOTrainer, "compute_loss", lose)
    recipe = RankerRecipe(**{**QUICK, "divergence": 0.0})
    base, out = f"setwise@hf:{tiny_judge}", tmp_path / "out"
    with pytest.raises(InputError, match="the loss is not finite at step 2: lower the learning_rate") as stop:
        RankerTraining(examples, base, out, recipe, device="cpu").run()
    assert "the weights of step 1" in stop.value.__notes__[0]
    assert not out.exists()
    assert RankerTraining(examples, base, out, replace(recipe, steps=1), device="cpu").run().card["steps"] == 1


def test_answers_are_written_by_vllm_where_there_is_a_gpu(monkeypatch):
    from trl import GRPOConfig

    monkeypatch.setattr(import_module("trl.import_utils"), "is_vllm_available", lambda: True)
    assert grpo.plan_rollouts(torch.device("cpu"), 99) == {"use_vllm": False}
    chosen = grpo.plan_rollouts(torch.device("cuda"), 99)
    assert chosen == {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": 99}
    assert chosen.keys() <= {each.name for each in fields(GRPOConfig)}


def test_grpo_refuses_what_it_cannot_teach(tiny_encoder, tiny_judge, examples, tmp_path):
    for base, says in (
        (f"cross@hf:{tiny_encoder}", "causal language models"),
        (f"likelihood@hf:{tiny_judge}", "asks for a"),
    ):
        with pytest.raises(InputError, match=says):
            RankerTraining(examples, base, tmp_path / "out", RankerRecipe(**QUICK), device="cpu").run()


class Sage(BaseJudge):
    """A teacher that names the first passage, and once says nothing that could be read."""

    can = frozenset({"generate"})
    chats = True
    fingerprint = "sage"

    def __init__(self):
        super().__init__("sage", "0")
        self.asked = 0

    def compute_completions(self, prompts, sampling):
        self.asked += len(prompts)
        self.count_answers(len(prompts))
        return [Completion("the first says so</think>\n<answer>[1]</answer>", 9) for _ in prompts]


def test_a_teachers_thoughts_are_kept_where_they_led_to_the_right_answer(chat, examples, tmp_path, monkeypatch):
    sage = Sage()
    monkeypatch.setattr(train, "load_judge", lambda spec, **_: sage)
    recipe = RankerRecipe(teacher="py:sage:Sage", samples=2, batch=2, steps=1, precision="float32", seed=1)
    base = f"rank-r1@hf:{chat}"
    RankerTraining(examples, base, tmp_path / "out", recipe, device="cpu").run()
    assert sage.asked == 2 * len(examples)
    lines = [json.loads(line) for line in (tmp_path / "out/thoughts.jsonl").read_text().splitlines()]
    by_query = {example.query.id: example for example in examples}
    prompt = open_ranker(base, device="cpu").prompt
    right = [
        example.query.id
        for place, example in enumerate(examples)
        if draw_question(prompt, example, recipe, place)[1].positive[0]
    ]
    assert 0 < len(right) < len(by_query)
    assert [line["query"] for line in lines] == right
    assert {line["thought"] for line in lines} == {"the first says so"}


def test_thoughts_are_learnt_with_their_verdicts(chat, examples, tmp_path: Path):
    path = tmp_path / "thoughts.jsonl"
    lines = [
        {"query": each.query.id, "documents": [d.id for d in each.documents], "thought": f"It is {n}."}
        for n, each in enumerate(examples)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = RankerRecipe(
        thoughts=str(path), batch=4, steps=12, learning_rate=1e-2, embeddings=True, precision="float32"
    )
    done = RankerTraining(examples, f"rank-r1@hf:{chat}", tmp_path / "out", recipe, device="cpu").run()
    losses = [point["loss"] for point in done.card["curve"] if "loss" in point]
    assert losses[-1] < 0.5 * losses[0]
    from crosslens.training.ranker.thoughts import ThoughtLesson

    opened = open_ranker(f"rank-r1@hf:{chat}", device="cpu")
    task = ThoughtLesson(opened.prompt, opened.judge, path).prepare(next(iter(examples)), random.Random(0))
    said = opened.judge.tokenizer.decode(task.rows[0][0][1].tokens)
    assert said == "It is 0.</think>\n<answer>[1]</answer></s>"
    path.write_text('{"query": "q0"}\n')
    with pytest.raises(InputError, match=r"thoughts.jsonl:1: a thought is an object"):
        ThoughtLesson(opened.prompt, opened.judge, path)
    assert torch.isfinite(torch.tensor(losses)).all()
