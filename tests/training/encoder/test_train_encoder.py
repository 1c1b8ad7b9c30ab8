"""`train_encoder`: what is made loads as what it was made of; killed it goes on; what goes wrong is one line."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError, list_kept
from crosslens.items import Item, Role
from crosslens.training.data.examples import Example, write_examples
from crosslens.training.encoder import dense, sparse
from crosslens.training.encoder.train import train_encoder
from crosslens.training.encoder.trainable import open_base
from crosslens.training.recipe import EncoderRecipe, read_recipe
from stand_ins.children import Child
from stand_ins.table import table

Write = Callable[..., str]
QUICK = EncoderRecipe(batch=8, steps=6, learning_rate=3e-3, check=2)
LEARNT = {"loss": "sigmoid", "bias": -2.0, "temperature": 0.1, "learn_scale": True}
COLBERT_X = {**vars(read_recipe(EncoderRecipe, "colbert-x-mtt")), "batch": 8, "steps": 10, "learning_rate": 3e-3}
SPARSE = {"temperature": 1.0, "flops": 1e-4, "query_flops": 1e-4}
# kind -> the fixture of its base, the SPEC, and what more a recipe says. A new kind is one line here.
KINDS = {
    "hf": ("tiny_encoder", "hf:{}?pooling=mean&query_prompt=a b: &document_prompt=c: &max_tokens=60", {}),
    "hf, cut": ("tiny_encoder", "hf:{}?pooling=cls&dim=16", {"dims": (8,)}),
    "hf, lora": ("tiny_encoder", "hf:{}?pooling=mean", {"lora": 4}),
    "llm": ("tiny_llm", "llm:{}?instruct=find it&max_tokens=50", {}),
    "llm, lora": ("tiny_llm", "llm:{}", {"lora": 4, "lora_layers": ("q_proj", "v_proj")}),
    "llm, adapters apart": ("tiny_llm", "llm:{}?max_tokens=50", {"lora": 4, "merge": False}),
    "llm, both ways": ("tiny_llm", "llm:{}?attention=bidirectional&pooling=mean", {"learning_rate": 1e-3}),
    "late": ("tiny_colbert", "late:{}?query_tokens=20&pool=2", {"temperature": 1.0, "freeze": ("encoder.layer.0",)}),
    "late, lora": ("tiny_colbert", "late:{}", {"temperature": 1.0, "lora": 4, "document_tokens": 20}),
    "splade": ("tiny_splade", "splade:{}?query_prompt=a:", {"temperature": 1.0, "flops": 1e-4, "query_flops": 1e-4}),
    "splade, beside a table": ("tabled_splade", "splade:{}?lookup=false", {"temperature": 1.0, "flops": 1e-4}),
    "splade, lora": ("tiny_splade", "splade:{}", {"temperature": 1.0, "lora": 4, "learning_rate": 1e-2}),
    # Checkpoints that were trained for something else: what they become says how it is used by itself.
    "late, plain": ("tiny_xlmr", "late:{}", COLBERT_X),
    "late, plain, all said": ("tiny_modernbert", "late:{}?dim=24&query_tokens=20&max_tokens=50", {"temperature": 1.0}),
    "late, plain, lora": ("tiny_encoder", "late:{}", {"temperature": 1.0, "lora": 4, "lora_layers": ("query",)}),
    "splade, plain": ("tiny_xlmr", "splade:{}?query_prompt=a:&max_tokens=50&pooling=sum", SPARSE),
    "splade, plain, idle modules": ("tiny_modernbert", "splade:{}?activation=log1p_relu", SPARSE),
    "splade, plain, old names": ("old_mlm", "splade:{}", SPARSE),
    "clip": ("tiny_clip", "clip:{}?template=photo&text_weight=0.4", {"symmetric": True, "temperature": 0.1}),
    "clip, locked": ("tiny_multilingual_clip", "clip:{}", {**LEARNT, "lock_pictures": True, "query_tokens": 8}),
    "llm, dense layers": ("tiny_bidirectional_llm", "llm:{}", {"symmetric": True, "margin": 0.2}),
}
TEXTS = [Item(str(n), text) for n, text in enumerate(["aaa d", "bbb d z z z", "ccc", "x " * 200])]


def vectors_of(encoder, item: Item, role: Role = "query") -> np.ndarray:
    """The vector, or vectors, of an item, of any kind."""
    held = next(iter(encoder.encode([item], role))).vectors
    return held.toarray() if hasattr(held, "toarray") else np.asarray(held[0])


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_loads_as_what_it_was(
    kind: str, request: pytest.FixtureRequest, examples_file: Write, tmp_path: Path
):
    fixture, spec, more = KINDS[kind]
    base = spec.format(request.getfixturevalue(fixture))
    data, recipe = examples_file(pictured=kind.startswith("clip")), replace(QUICK, **{"steps": 10, **more})
    before = open_base(base, recipe, device="cpu").trainable.encoder
    start = vectors_of(before, TEXTS[0])
    made = train_encoder(data, base, tmp_path / "made", recipe, device="cpu")
    losses = [point["loss"] for point in made.card["curve"]]
    assert len(losses) == 10
    assert np.mean(losses[5:]) < np.mean(losses[:5]) * 0.8  # the second epoch, and the first
    after = load_encoder(made.spec, device="cpu")
    extra = {key: value for key, value in after.spec.extra.items() if key != "adapter"}
    assert replace(after.spec, revision=before.spec.revision, name=before.spec.name, extra=extra) == before.spec
    assert not np.allclose(vectors_of(after, TEXTS[0]), start, atol=0.01)
    if "plain" in kind:
        assert made.spec == f"{kind.partition(',')[0]}:{tmp_path / 'made'}"
    card = json.loads((tmp_path / "made" / "training.json").read_text())
    assert card["base"]["revision"] == before.spec.revision
    assert not (tmp_path / ".made.partial").exists()
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "made").rglob("*") if path.is_file()}
    assert len(set(modes.values())) == 1, modes  # who may read one file may read all


def test_adapters_apart_are_those_that_would_be_merged(tiny_llm: Path, examples_file: Write, tmp_path: Path):
    vectors = []
    for merge in (True, False):
        recipe = replace(QUICK, lora=4, merge=merge)
        made = train_encoder(examples_file(), f"llm:{tiny_llm}", tmp_path / f"made-{merge}", recipe, device="cpu")
        assert (tmp_path / f"made-{merge}" / "adapter_model.safetensors").exists() != merge
        assert (tmp_path / f"made-{merge}" / "model.safetensors").exists() == merge
        vectors.append(vectors_of(load_encoder(f"{made.spec}?dtype=float32", device="cpu"), TEXTS[1]))
    assert np.allclose(*vectors, atol=1e-5)


@pytest.mark.parametrize("kind", ["hf", "llm"])
def test_sentence_transformers_makes_the_same_vectors(
    kind: str, request: pytest.FixtureRequest, examples_file: Write, tmp_path: Path
):
    oracle = pytest.importorskip("sentence_transformers").SentenceTransformer
    fixture, spec, _ = KINDS[kind]
    base = spec.format(request.getfixturevalue(fixture))
    made = train_encoder(examples_file(), base, tmp_path / "made", replace(QUICK, steps=2), device="cpu")
    theirs = oracle(str(tmp_path / "made"), device="cpu").encode([text.text for text in TEXTS], prompt_name="query")
    ours = load_encoder(f"{made.spec}?dtype=float32", device="cpu")
    assert np.allclose(encode_matrix(ours, TEXTS, "query"), theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("late, plain", "MultiVectorEncoder"),
        ("late, plain, all said", "MultiVectorEncoder"),
        ("splade, plain, idle modules", "SparseEncoder"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_it_knows_what_a_plain_checkpoint_became(
    kind: str, theirs: str, request: pytest.FixtureRequest, examples_file: Write, tmp_path: Path
):
    fixture, spec, more = KINDS[kind]
    base, recipe = spec.format(request.getfixturevalue(fixture)), replace(QUICK, **{**more, "steps": 2})
    made = train_encoder(examples_file(), base, tmp_path / "made", recipe, device="cpu")
    oracle = getattr(pytest.importorskip("sentence_transformers"), theirs)(str(tmp_path / "made"), device="cpu")
    ours = load_encoder(f"{made.spec}?dtype=float32", device="cpu")
    for role, encode in (("query", oracle.encode_query), ("document", oracle.encode_document)):
        for item in TEXTS:
            wanted = encode(item.text).to_dense().float().cpu().numpy()
            found = vectors_of(ours, item, role)
            if theirs == "SparseEncoder":
                wanted[ours.tokenizer.all_special_ids] = 0  # which trained models leave at 0 themselves
                found = found[0]
            assert found.shape == wanted.shape
            assert np.allclose(found, wanted, atol=1e-4)


def test_an_encoder_in_use_keeps_its_weights(tiny_encoder: Path, examples_file: Write, tmp_path: Path):
    used = load_encoder(f"hf:{tiny_encoder}?pooling=mean&dtype=float32", device="cpu")
    before = encode_matrix(used, TEXTS, "query")
    train_encoder(examples_file(), f"hf:{tiny_encoder}?pooling=mean", tmp_path / "made", QUICK, device="cpu")
    assert np.array_equal(encode_matrix(used, TEXTS, "query"), before)


def test_word_embeddings_stay_unless_asked_for(tiny_encoder: Path, examples_file: Write, tmp_path: Path):
    for embeddings in (False, True):
        how = replace(QUICK, embeddings=embeddings, steps=2, freeze=("encoder.layer.0",))
        output = tmp_path / f"made-{embeddings}"
        train_encoder(examples_file(), f"hf:{tiny_encoder}?pooling=mean", output, how, device="cpu")
        made, base = (load_encoder(f"hf:{path}?dtype=float32&pooling=mean").model for path in (output, tiny_encoder))
        tables = [each.get_input_embeddings().weight for each in (made, base)]
        assert torch.equal(*tables) is not embeddings
        first, last = ([each.encoder.layer[n].output.dense.weight for each in (made, base)] for n in (0, 1))
        assert torch.equal(*first)
        assert not torch.equal(*last)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


DIE = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from crosslens.training.encoder.train import train_encoder
from crosslens.training.recipe import EncoderRecipe

@contextmanager
def show(what, total=None):
    def count(done):
        if done == 5:
            os.kill(os.getpid(), signal.SIGKILL)
    yield count

data, base, output = sys.argv[1:]
train_encoder(data, base, Path(output), EncoderRecipe(batch=8, steps=8, learning_rate=3e-3, check=2, dropout=0.1),
              device="cpu", progress=show)
"""


@pytest.mark.parametrize("spec", ["hf:{}?pooling=mean", "late:{}"])
def test_killed_it_goes_on_with_the_same_curve(spec: str, tiny_encoder: Path, examples_file: Write, tmp_path: Path):
    data, base = examples_file(), spec.format(tiny_encoder)
    recipe = replace(QUICK, steps=8, dropout=0.1)
    whole = train_encoder(data, base, tmp_path / "whole", recipe, device="cpu")
    child = Child(DIE, data, base, tmp_path / "killed")
    assert child.wait() == -9, child.stderr.read()
    assert (tmp_path / ".killed.partial" / "checkpoint-4").is_dir()
    with pytest.raises(InputError, match="begun with another recipe"):
        train_encoder(data, base, tmp_path / "killed", replace(recipe, seed=1), device="cpu")
    (tmp_path / ".killed.partial" / "checkpoint-6").mkdir()  # one that was not finished
    seen: list[int] = []

    class Shown:
        def __init__(self, what: str, total: int | None = None) -> None: ...

        def __enter__(self):
            return seen.append

        def __exit__(self, *error: object): ...

    resumed = train_encoder(data, base, tmp_path / "killed", recipe, device="cpu", progress=Shown)
    assert seen == [5, 6, 7, 8]
    curves = [[point["loss"] for point in made.card["curve"]] for made in (whole, resumed)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    again = train_encoder(data, base, tmp_path / "killed", recipe, device="cpu")
    assert again.card == resumed.card
    assert (again.before, resumed.before) == (True, False)
    with pytest.raises(InputError, match="trained with steps 8, not 9: name another output"):
        train_encoder(data, base, tmp_path / "killed", replace(recipe, steps=9), device="cpu")
    with pytest.raises(InputError, match="is there already, and not from this call"):
        train_encoder(data, base, tmp_path / "killed", replace(recipe, seed=1), device="cpu")


LACKING = ["scheduler.pt"]  # which transformers would begin again


@pytest.mark.parametrize(
    "file", ["trained.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json", *LACKING]
)
def test_a_damaged_checkpoint_is_one_line_and_the_one_before_is_gone_on_from(
    file: str, tiny_encoder: Path, examples_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data, base, output = examples_file(), f"hf:{tiny_encoder}?pooling=mean", tmp_path / "made"
    with monkeypatch.context() as patch:
        patch.setattr("crosslens.training.loop.TrainingLoop.describe", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_encoder(data, base, output, QUICK, device="cpu")
    last = tmp_path / ".made.partial" / "checkpoint-6"
    if file in LACKING:
        (last / file).unlink()
    else:
        (last / file).write_bytes((last / file).read_bytes()[:100])
    (last.parent / "checkpoint-old").mkdir()  # a copy of somebody's
    with pytest.raises(InputError, match="checkpoint-6 is damaged"):
        train_encoder(data, base, output, replace(QUICK, steps=7), device="cpu")
    shutil.rmtree(last)
    assert train_encoder(data, base, output, QUICK, device="cpu").card["steps"] == 6


def test_a_note_says_that_there_was_nothing_to_learn(tiny_encoder: Path, tmp_path: Path):
    examples = [Example(Item(str(number), "abc"[number % 3]), (Item("d", "all alike"),)) for number in range(8)]
    write_examples(tmp_path / "alike.jsonl", examples, {})
    base = f"hf:{tiny_encoder}?pooling=mean"
    made = train_encoder(str(tmp_path / "alike.jsonl"), base, tmp_path / "made", replace(QUICK, steps=2), device="cpu")
    (note,) = made.notes
    assert "the loss was 0 at each step" in note


def test_what_terms_cost_rises_by_the_square_in_a_third_of_the_training(
    tiny_splade: Path, examples_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def learn(cost: float) -> np.ndarray:
        monkeypatch.setattr(sparse.TrainableSparse, "penalise", lambda *_: torch.tensor(cost))
        recipe = replace(QUICK, temperature=1.0)
        made = train_encoder(examples_file(), f"splade:{tiny_splade}", tmp_path / str(cost), recipe, device="cpu")
        return np.array([point["loss"] for point in made.card["curve"]])

    rise = learn(49.0) - learn(0.0)  # six steps: the first is a seventh of it, the third more than a third
    assert rise == pytest.approx([9, 36, 49, 49, 49, 49], rel=1e-3)


def test_a_loss_that_is_not_finite_stops_it_and_keeps_the_last_weights(
    tiny_encoder: Path, examples_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data, base = examples_file(), f"hf:{tiny_encoder}?pooling=mean"
    represent, calls = dense.TrainableDense.represent, []

    def fail(self, inputs):
        calls.append(1)
        made = represent(self, inputs)
        return made * torch.nan if len(calls) == 5 else made

    monkeypatch.setattr(dense.TrainableDense, "represent", fail)
    with pytest.raises(InputError, match="the loss is not finite at step 5: lower the learning_rate") as error:
        train_encoder(data, base, tmp_path / "made", QUICK, device="cpu")
    assert "the weights of step 4" in list_kept(error.value)[0]
    assert not (tmp_path / "made").exists()
    monkeypatch.undo()
    made = train_encoder(data, base, tmp_path / "made", replace(QUICK, steps=4), device="cpu")
    assert made.card["steps"] == 4


def test_out_of_memory_halves_what_goes_through_at_once_and_changes_nothing(
    tiny_encoder: Path, examples_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    data, base = examples_file(), f"hf:{tiny_encoder}?pooling=mean"
    monkeypatch.setattr("crosslens.training.encoder.loop.resolve_dtype", lambda *_: torch.float32)
    whole = train_encoder(data, base, tmp_path / "whole", QUICK, device="cpu")
    represent = dense.TrainableDense.represent

    def fail(self, inputs):
        if max(map(len, inputs)) * len(inputs) > 40:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return represent(self, inputs)

    monkeypatch.setattr(dense.TrainableDense, "represent", fail)
    with caplog.at_level(logging.WARNING, "crosslens"):
        less = train_encoder(data, base, tmp_path / "less", QUICK, device="cpu")
    assert "out of memory: going on with" in caplog.text
    assert less.card["micro_tokens"] <= 40
    curves = [[point["loss"] for point in made.card["curve"]] for made in (whole, less)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    monkeypatch.setattr(dense.TrainableDense, "represent", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(InputError, match="a single text of .* tokens does not fit into memory"):
        train_encoder(data, base, tmp_path / "none", QUICK, device="cpu")


FULL = """
import resource, signal, sys
from pathlib import Path
from crosslens.training.encoder.train import train_encoder
from crosslens.training.recipe import EncoderRecipe

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
data, base, output = sys.argv[1:]
try:
    train_encoder(data, base, Path(output), EncoderRecipe(batch=8, steps=4, check=2), device="cpu")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("negatives", [1, 30])  # a checkpoint does not fit, or the texts of the examples
def test_what_cannot_be_written_is_one_line(negatives: int, tiny_encoder: Path, examples_file: Write, tmp_path: Path):
    child = Child(FULL, examples_file(40, negatives), f"hf:{tiny_encoder}?pooling=mean", tmp_path / "made")
    child.wait()
    said = child.stdout.read()
    assert said.startswith("InputError cannot write to"), said + child.stderr.read()
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / ".made.partial").exists()


@table(
    ("base", "said"),
    [
        ("offline:use-m3", r"offline:use-m3 cannot be trained \(it is a program in numpy"),
        ("offline:e5-use", "train offline:e5-small, and put the result into an ensemble:"),
        ("hf:{}?dtype=int8", "weights in int8 take no gradients"),
        ("llm:{}?dtype=4bit", "leave dtype out, or train adapters beside them: lora, and merge=false"),
        ("st:{}", "write hf: in place of st:"),
        ("offline:conse?text=use-m3", "its text encoder knows no gradients; take text=e5-small"),
        ("py:here:Encoder", r"it is none of ours\); take one of hf:, llm:"),
    ],
)
def test_a_base_that_cannot_be_trained(base: str, said: str, tiny_encoder: Path, examples_file: Write, tmp_path: Path):
    with pytest.raises(InputError, match=said):
        train_encoder(examples_file(), base.format(tiny_encoder), tmp_path / "made", QUICK, device="cpu")


@table(
    ("changed", "said"),
    [
        ({"query_flops": 0.1}, "has no terms"),
        ({"loss": "kl"}, "has no scores of a teacher, which the loss kl learns from"),
        ({"freeze": ("head",)}, r"no weights are named 'head' \(there are embeddings"),
        ({"freeze": ("encoder", "embeddings")}, "nothing is left to train"),
        ({"lora": 2, "lora_layers": ("query", "q_proj")}, "no linear layer's name ends with q_proj"),
        ({"dims": (64,)}, "vectors of 32 components, not 64"),
        ({"lora": 2, "merge": False}, "merge=false: hf: loads no adapter beside its base"),
        ({"lock_pictures": True}, "lock_pictures: hf:.* has no tower of pictures"),
    ],
)
def test_recipes_that_do_not_fit(changed: dict, said: str, tiny_encoder: Path, examples_file: Write, tmp_path: Path):
    base = f"hf:{tiny_encoder}?pooling=mean"
    with pytest.raises(InputError, match=said):
        train_encoder(examples_file(), base, tmp_path / "made", replace(QUICK, **changed), device="cpu")


@pytest.mark.parametrize("name", ["made?a=b", "link"])
def test_an_output_that_no_result_could_be_is_refused_before_the_work(
    name: str, tiny_encoder: Path, examples_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    monkeypatch.setattr("crosslens.training.encoder.train.open_base", interrupt)
    with pytest.raises(InputError, match=r"cannot be named by a SPEC|is there already"):
        train_encoder(examples_file(), f"hf:{tiny_encoder}", tmp_path / name, QUICK, device="cpu")


def test_too_few_examples_says_how_many(tiny_encoder: Path, examples_file: Write, tmp_path: Path):
    with pytest.raises(InputError, match="has 1 examples, and 2 are needed"):
        train_encoder(examples_file(1), f"hf:{tiny_encoder}", tmp_path / "made", QUICK, device="cpu")
