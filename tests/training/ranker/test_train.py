"""Rankers that are trained for a few steps: what they see, what comes out, what a kill leaves."""

from __future__ import annotations

import errno
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from crosslens.checkpoints.options import Loading
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges.hf import open_hf
from crosslens.training import loop
from crosslens.training.data.examples import Example, load_examples, write_examples
from crosslens.training.data.stored import ItemStore
from crosslens.training.ranker.lessons import ScoreLesson, TextLesson, draw_documents
from crosslens.training.ranker.loop import RankerTrainer
from crosslens.training.ranker.losses import LOSSES, make_loss
from crosslens.training.ranker.opening import open_ranker
from crosslens.training.ranker.recipe import RankerRecipe
from crosslens.training.ranker.train import RankerTraining
from safetensors import SafetensorError
from stand_ins.table import table
from tiny import decoders, tokenizers

ANIMALS = ("cat", "dog", "owl", "bee", "fox", "hen")
QUICK = {"batch": 2, "group": 3, "learning_rate": 3e-3, "check": 2, "precision": "float32", "warmup": 0.0}


def make_examples(where: Path, count: int = 6, scored: bool = False, negatives: bool = True) -> Path:
    documents = [
        Item(f"d{n}", f"The {name} sleeps all day and hunts at night.", lang="eng") for n, name in enumerate(ANIMALS)
    ]
    made = [
        Example(
            Item(f"q{n}", f"when does the {ANIMALS[n % 6]} hunt", lang="eng"),
            (documents[n % 6],),
            tuple(documents[(n + m) % 6] for m in (1, 2, 3)) if negatives else (),
            (3.0, 1.0, -1.0, -2.0) if scored else (),
        )
        for n in range(count)
    ]
    path = where / ("scored.jsonl" if scored else "examples.jsonl")
    write_examples(path, made, {"made": "here"})
    return path


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return load_examples(make_examples(tmp_path_factory.mktemp("examples")))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return load_examples(make_examples(tmp_path_factory.mktemp("scored"), scored=True))


@pytest.fixture(scope="module")
def bases(tmp_path_factory, tiny_encoder, tiny_judge, tiny_llm):
    """Checkpoints by name: an encoder, a decoder without a chat template, one with, and an encoder-decoder."""
    where = tmp_path_factory.mktemp("bases")
    chat = decoders.save_llm(where / "chat", "Qwen3", "$A")
    tokenizer = transformers.AutoTokenizer.from_pretrained(chat)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    tokenizer.save_pretrained(chat)
    t5 = where / "t5"
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    made = tokenizers.make_tokenizer("$A </s>", **special)
    made.save_pretrained(t5)
    config = transformers.T5Config(
        vocab_size=len(made),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).save_pretrained(t5)
    return {"encoder": tiny_encoder, "gemma": tiny_judge, "llama": tiny_llm, "chat": chat, "t5": t5}


CASES = [
    ("cross", "encoder", {"loss": "lambda"}),
    ("rankllama", "llama", {"lora": 4}),
    ("yesno", "chat", {"lora": 4}),
    ("monot5", "t5", {"loss": "bce"}),
    ("setwise", "gemma", {"lora": 4}),
    ("listwise", "chat", {}),
]


@pytest.mark.parametrize(("prompt", "base", "more"), CASES, ids=[f"{p}-{b}" for p, b, _ in CASES])
def test_the_result_is_a_judge_that_scores_as_trained(prompt, base, more, bases, examples, tmp_path, monkeypatch):
    """Ids seen in training are those that the reloaded judge is shown, and both give the same scores."""
    recipe = RankerRecipe(**{**QUICK, "steps": 2, **more})
    spec = f"{prompt}@hf:{bases[base]}"
    done = RankerTraining(examples, spec, tmp_path / "out", recipe, device="cpu").run()
    assert done.card["steps"] == 2
    assert not list(tmp_path.glob(".*partial"))
    card = json.loads((tmp_path / "out/training.json").read_text())
    assert card["prompt"] == prompt
    assert card["examples"]["sha256"] == examples.card["sha256"]

    opened = open_ranker(done.spec, device="cpu")
    trained = opened.judge
    # Of an example as a lesson: what it asks, and what it makes of the answers.
    example = next(iter(examples))
    drawn = draw_documents(example, "ranknet", 3, random.Random(0))
    judge = open_hf(str(tmp_path / "out"), loading=Loading(device="cpu"), dtype="float32")
    seen = watch_ids(judge, monkeypatch)
    score = opened.prompt.score(judge, [(drawn.query, drawn.documents)])[0]
    if prompt == "listwise":
        lesson = TextLesson(opened.prompt, trained, 3)
        assert [lesson.ask(drawn).rows[0][0][0]] == seen
        return
    lesson = ScoreLesson(opened.prompt, trained, make_loss("softmax"), "softmax", 3)
    task = lesson.ask(drawn)
    asked = [each["input_ids"] for each in task.inputs] or [start for row in task.rows for start, _ in row]
    assert {*map(flatten, asked)} == {*map(flatten, seen)}
    with torch.inference_mode():
        own = lesson.score([task])[0].double()
    own = own.log_softmax(0) if opened.prompt.most > 1 else own
    np.testing.assert_allclose(own.numpy(), score, atol=1e-4)
    before = open_ranker(spec, device="cpu")
    untrained = before.prompt.score(before.judge, [(drawn.query, drawn.documents)])[0]
    assert np.abs(untrained - score).max() > 1e-3


def flatten(ids):
    return (*ids[0], -1, *ids[1]) if isinstance(ids[0], tuple) else tuple(ids)


def watch_ids(judge, monkeypatch):
    """The ids that a judge is shown from now on."""
    seen: list = []
    if hasattr(judge, "grades"):
        encode = judge.encode
        monkeypatch.setattr(
            judge, "encode", lambda prompt: (found := encode(prompt), seen.append(found["input_ids"]))[0]
        )
        return seen
    prepare = judge.prepare_prompts

    def keep(prompts, room):
        starts, texts = prepare(prompts, room)
        seen.extend(starts)
        return starts, texts

    monkeypatch.setattr(judge, "prepare_prompts", keep)
    return seen


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_fall_where_scores_follow_their_targets(loss):
    compute = make_loss(loss)
    targets = torch.tensor([1.0, 0.0, 0.0])
    good, bad = (torch.tensor(values, requires_grad=True) for values in ([2.0, -2.0, -2.5], [-2.0, 2.0, 1.5]))
    if loss in ("mse", "margin-mse", "kl"):
        assert compute(targets.clone(), targets) == pytest.approx(0.0, abs=1e-6)
    assert compute(good, targets) < compute(bad, targets)
    compute(bad, targets).backward()
    assert bad.grad[0] < 0 < bad.grad[1]


def train(examples, where, base, **settings):
    steps = {"steps": 6} if "epochs" not in settings else {}
    training = RankerTraining(examples, base, where, RankerRecipe(**{**QUICK, **steps, **settings}), device="cpu")
    return training.run()


def read_losses(done):
    return [point["loss"] for point in done.card["curve"] if "loss" in point]


def test_what_was_killed_goes_on_as_if_it_had_not_been(bases, examples, tmp_path, monkeypatch):
    base = f"cross@hf:{bases['encoder']}"
    whole = train(examples, tmp_path / "whole", base)

    class Killed(BaseException):
        pass

    taken = RankerTrainer.training_step

    def step(self, *given):
        if self.state.global_step == 5:
            (Path(self.args.output_dir) / "checkpoint-5").mkdir()  # half-written, as a kill leaves it
            raise Killed
        return taken(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(RankerTrainer, "training_step", step)
        with pytest.raises(Killed):
            train(examples, tmp_path / "out", base)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"begun with another recipe"):
        train(examples, tmp_path / "out", base, learning_rate=1e-2)
    done = train(examples, tmp_path / "out", base)
    assert done.card["steps"] == 6
    np.testing.assert_allclose(read_losses(done), read_losses(whole), rtol=1e-3)
    one, other = (
        torch.nn.Module.state_dict(open_ranker(each.spec, device="cpu").judge.model) for each in (whole, done)
    )
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(bases, examples, tmp_path, monkeypatch):
    computed = ScoreLesson.compute
    calls = iter(range(100))
    monkeypatch.setattr(
        ScoreLesson, "compute", lambda self, tasks: computed(self, tasks) * (torch.nan if next(calls) == 4 else 1)
    )
    with pytest.raises(InputError, match=r"the loss is not finite at step 5: lower the learning_rate") as stop:
        train(examples, tmp_path / "out", f"cross@hf:{bases['encoder']}")
    assert "the weights of step 4" in stop.value.__notes__[0]


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(bases, examples, tmp_path, monkeypatch):
    saved = loop.save_file
    calls = iter(range(9))

    def save(held, path):
        if next(calls) == 1:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        saved(held, path)

    monkeypatch.setattr(loop, "save_file", save)
    with pytest.raises(InputError, match=r"cannot write to .*No space left") as stop:
        train(examples, tmp_path / "out", f"yesno@hf:{bases['gemma']}", steps=4)
    assert "the weights of step 2" in stop.value.__notes__[0]

    def append(self, item):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ItemStore, "append", append)
    with pytest.raises(InputError, match=r"cannot write to .*No space left"):
        train(examples, tmp_path / "none", f"yesno@hf:{bases['gemma']}", steps=4)
    assert not (tmp_path / ".none.partial").exists()


def test_out_of_memory_halves_micro_batches_and_changes_no_loss(bases, examples, tmp_path, monkeypatch):
    base = f"yesno@hf:{bases['gemma']}"
    whole = train(examples, tmp_path / "whole", base, batch=4, steps=3)
    sizes: list[int] = []
    computed = ScoreLesson.compute

    def compute(self, tasks):
        sizes.append(len(tasks))
        if len(tasks) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return computed(self, tasks)

    monkeypatch.setattr(ScoreLesson, "compute", compute)
    most = 2
    done = train(examples, tmp_path / "out", base, batch=4, steps=3)
    assert sizes[0] == 4
    assert max(sizes[1:]) == 2
    np.testing.assert_allclose(read_losses(done), read_losses(whole), rtol=1e-3)
    most = 0
    with pytest.raises(InputError, match="out of memory with one query of .* lower group"):
        train(examples, tmp_path / "none", base, batch=4, steps=3)


def test_a_teachers_scores_are_learnt(bases, scored, tmp_path):
    """Distilled for a while, the student ranks as the teacher did."""
    done = train(
        scored, tmp_path / "out", f"yesno@hf:{bases['gemma']}", steps=20, group=4, learning_rate=1e-2, batch=6, check=40
    )
    losses = read_losses(done)
    assert losses[-1] < 0.5 * losses[0]


def test_the_best_weights_on_dev_data_are_the_result(bases, examples, scored, tmp_path):
    recipe = RankerRecipe(**{**QUICK, "steps": 6, "patience": 9})
    done = RankerTraining(
        examples, f"yesno@hf:{bases['gemma']}", tmp_path / "out", recipe, dev=scored, device="cpu"
    ).run()
    again = RankerTraining(
        examples, f"yesno@hf:{bases['gemma']}", tmp_path / "out", recipe, dev=scored, device="cpu"
    ).run()
    assert again == replace(done, before=True)  # the same call finds what is there
    page = (done.output / "training.html").read_text()
    assert [page.count(f"<figcaption>{title}") for title in ("Loss<", "nDCG@10 on", "Learning rate<")] == [1, 1, 1]
    assert list((done.output / "events").iterdir())
    measured = [check["value"] for check in done.card["dev"]["checks"]]
    assert len(measured) == 3
    from crosslens.training.ranker.train import measure_ndcg

    assert measure_ndcg(open_ranker(f"{done.spec}?dtype=float32", device="cpu"), list(scored)) == pytest.approx(
        max(measured)
    )


def test_adapters_are_loaded_beside_their_base(bases, examples, tmp_path):
    done = train(examples, tmp_path / "out", f"yesno@hf:{bases['gemma']}", lora=4, merge=False, steps=1)
    assert not (tmp_path / "out/model.safetensors").exists()
    judge = open_hf(str(tmp_path / "out"), loading=Loading(device="cpu"), dtype="float32")
    assert judge.can >= {"choose"}
    assert done.spec == f"yesno@hf:{tmp_path / 'out'}"
    # It is trained on as its base is, but its adapter is merged then.
    with pytest.raises(InputError, match="has an adapter in it"):
        train(examples, tmp_path / "more", done.spec, lora=4, merge=False, steps=1)
    with pytest.raises(InputError, match="was trained with the prompt yesno, not setwise"):
        train(examples, tmp_path / "more", f"setwise@hf:{done.output}", steps=1)


BAD = [
    ("yesno@vllm:x", {}, "out of reach of training"),
    ("yesno@openai:x", {}, "out of reach of training"),
    ("yesno@hf:{gemma}?dtype=int8", {}, "int8 cannot be trained"),
    ("hf:{gemma}", {}, "does not say what it is asked"),
    ("setwise:heapsort@hf:{gemma}", {}, "not for a sorter"),
    ("likelihood@hf:{gemma}", {}, "which is not trained here"),
    ("yesno@hf:{encoder}", {}, "answers no questions"),
    ("cross@hf:{encoder}", {"loss": "kl"}, "6 of 6 examples have no scores"),
    ("cross@hf:{encoder}", {"batch": 7}, "has 6 examples, and 7 are needed"),
    ("cross@hf:{encoder}", {"loss": "text"}, "says no text"),
    ("setwise@hf:{gemma}", {"loss": "bce"}, "take softmax or kl, not bce"),
    ("listwise@hf:{gemma}", {"loss": "kl"}, "its loss is text"),
    ("rank1@hf:{gemma}", {}, "give `thoughts`"),
    ("yesno@hf:{gemma}", {"lora": 4, "lora_layers": ("nothing",)}, "its linear ones are .*q_proj"),
]


@table(("base", "settings", "says"), BAD)
def test_what_cannot_be_trained_is_one_line(base, settings, says, bases, examples, tmp_path):
    with pytest.raises(InputError, match=says):
        train(examples, tmp_path / "out", base.format(**bases), **settings)


def test_data_without_negatives_and_taken_outputs_are_refused(bases, tmp_path):
    base = f"cross@hf:{bases['encoder']}"
    plain = load_examples(make_examples(tmp_path, negatives=False))
    with pytest.raises(InputError, match=r"has no negatives.*crosslens mine"):
        train(plain, tmp_path / "out", base)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(InputError, match="is there already"):
        train(plain, tmp_path / "full", base)
