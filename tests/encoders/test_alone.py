"""A text alone: the lean model gives the model's states, the fastest way is found, kept, and left where it is none."""

from __future__ import annotations

import gc
import time
import weakref
from threading import Thread

import numpy as np
import pytest
import torch
import transformers
from crosslens.checkpoints.lean import LeanBert, list_products
from crosslens.commands.doctor import list_paces
from crosslens.encoders import alone
from crosslens.encoders.alone import ROUNDS, Alone, Way
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.measured import locate_paces
from crosslens.encoders.registry import load_encoder
from crosslens.items import Item
from crosslens.training.encoder.trainable import own_weights

ABOUT = {"processor": "1 x CPU", "encoder": "tiny", "dtype": "float32"}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 90}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path))
    return tmp_path


def make_model(family="Bert", dtype=torch.float32, **more):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES, **more)
    model = getattr(transformers, f"{family}Model")(config).eval()
    for name, weight in model.named_parameters():  # biases and norms that are not 0 and 1
        torch.nn.init.normal_(weight, 1.0 if "LayerNorm.weight" in name else 0.0, 0.3)
    return model.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["Bert", "XLMRoberta"])
@torch.inference_mode()
def test_each_way_gives_the_states_of_the_model(family, dtype):
    model = make_model(family, dtype)
    products = list_products(model)
    assert {"torch"} <= products.keys()
    assert ("numpy" in products) == (dtype == torch.float32)
    for name, multiply in products.items():
        lean = LeanBert(model, multiply)
        for ids in ([5], [7, 1, 8, 0, 9, 11, 1, 30], list(range(2, 80))):  # among them what each pads with
            inputs = torch.tensor([ids])
            whole = model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).last_hidden_state[0]
            made = lean.compute_states(ids)
            assert made.dtype == dtype
            torch.testing.assert_close(made, whole, atol=1e-5 if dtype == torch.float32 else 0.1, rtol=0, msg=name)


def test_other_models_are_left_as_they_are():
    int8 = make_model()
    int8.encoder.layer[0].output.dense = torch.nn.Identity(32)
    int8.encoder.layer[0].output.dense.in_features = 32
    for model in (int8, make_model(is_decoder=True), make_model(dtype=torch.float16), transformers.DistilBertModel(
        transformers.DistilBertConfig(dim=8, n_heads=2, hidden_dim=8, n_layers=1, vocab_size=9))):  # fmt: skip
        assert not list_products(model)


class Slow:
    """A lean model that takes its time, by a clock that runs only here, or gives something else."""

    def __init__(self, lean, seconds, clock, wrong=False):
        self.lean, self.seconds, self.clock, self.wrong = lean, seconds, clock, wrong

    def compute_states(self, ids):
        self.clock.append(self.clock[-1] + self.seconds)
        states = self.lean.compute_states(ids)
        return states.flip(-1) if self.wrong else states


def begin(monkeypatch, seconds, wrong=()):
    """An `Alone` whose model takes 8 ms and whose ways take the given seconds."""
    model = make_model()
    clock = [0.0]
    monkeypatch.setattr(alone, "thread_time", lambda: clock[-1])
    model.register_forward_pre_hook(lambda *_: clock.append(clock[-1] + 0.008))
    made = iter(seconds)
    monkeypatch.setattr(alone, "list_products", lambda _: dict.fromkeys(seconds))
    monkeypatch.setattr(
        alone, "LeanBert", lambda *_: Slow(LeanBert(model, list_products(model)["torch"]), **of(next(made)))
    )

    def of(name):
        return {"seconds": seconds[name], "clock": clock, "wrong": name in wrong}

    return Alone(model, lambda: ABOUT)


@torch.inference_mode()
def test_the_fastest_way_is_found_and_kept(monkeypatch):
    ways = {"slow": 0.006, "fast": 0.001, "wrong": 0.0}
    found = begin(monkeypatch, ways, wrong=["wrong"])
    whole = [found.compute_states([5, 6, 7]) for _ in range(ROUNDS + 1)]
    assert found.known
    assert found.chosen.seconds == 0.001
    assert not found.ways
    torch.testing.assert_close(found.compute_states([5, 6, 7]), whole[0])
    assert found.compute_states([5] * (alone.MOST + 1)) is None
    (kept,) = Way.read_all("1 x CPU")
    assert kept.name == "fast"
    assert "wrong" not in kept.milliseconds
    assert not Way.read_all("2 x CPU")
    again = begin(monkeypatch, {"fast": 0.001})
    again.compute_states([5, 6, 7])
    assert again.known
    assert not again.spent
    (path,) = locate_paces().iterdir()
    path.write_text("[]")
    damaged = begin(monkeypatch, ways)
    damaged.compute_states([5, 6, 7])
    assert not damaged.known
    assert damaged.ways


@torch.inference_mode()
def test_the_model_stays_where_no_way_is_a_tenth_faster(monkeypatch):
    found = begin(monkeypatch, {"same": 0.0078})
    for _ in range(ROUNDS + 1):
        found.compute_states([5, 6, 7])
    assert found.known
    assert found.chosen is None
    assert found.compute_states([5, 6, 7]) is None
    assert Way.read_all("1 x CPU")[0].name == alone.WHOLE


@torch.inference_mode()
def test_beside_a_thread_that_measures_others_take_the_model():
    found = Alone(make_model(), lambda: time.sleep(0.2) or ABOUT)
    other = Thread(target=torch.inference_mode()(lambda: found.compute_states([5])))
    other.start()
    time.sleep(0.05)
    assert found.compute_states([5]) is None
    other.join()
    assert found.ways


def test_an_encoder_gives_the_same_vectors_and_shares_what_it_found(tiny_encoder):
    spec = f"hf:{tiny_encoder}?pooling=mean&dtype=float32"
    encoder = load_encoder(spec, device="cpu")
    items = [Item(str(n), text="cat dog " * (1 + n % 9)) for n in range(ROUNDS + 3)]
    together = encode_matrix(encoder, items, "query")
    encode_matrix(encoder, items[:1], "document")
    assert encoder.alone.about is None  # neither a batch nor a document is a query alone
    single = np.concatenate([encode_matrix(encoder, [item], "query") for item in items])
    assert encoder.alone.known
    np.testing.assert_allclose(single, together, atol=1e-6)
    assert load_encoder(spec + "&query_prompt=q", device="cpu").alone is encoder.alone
    assert "a text alone: by" in list_paces()[-1].found
    assert own_weights(encoder).alone is None
    held = weakref.ref(encoder.alone)
    del encoder
    gc.collect()
    assert held() is None
