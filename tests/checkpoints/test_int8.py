"""hf: in int8: the layers against plain arithmetic, the export that is kept, and what is refused."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from crosslens.checkpoints import int8
from crosslens.checkpoints.devices import resolve_dtype
from crosslens.checkpoints.int8 import LastStates, RowEmbedding, RowLinear
from crosslens.encoders.base import NotFinite, encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.items import Item
from safetensors.torch import load_file, save_file
from stand_ins.table import table

TEXTS = ["The cat sleeps all day.", "猫", "گربه تمام روز می‌خوابد.", "Кошка спит весь день. " * 8, "😀 e\u0301 x"]
ITEMS = [Item(str(n), text) for n, text in enumerate(TEXTS)]


@pytest.fixture(autouse=True)
def any_machine(monkeypatch) -> None:
    """What is said of the machine that tests run on is of no interest."""
    monkeypatch.setattr(int8, "compare_speed", lambda _: 1.0)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "int8"


@pytest.fixture
def checkpoint(tmp_path, tiny_encoder) -> Path:
    """A copy of `tiny_encoder` that no encoder of another test shares."""
    return Path(shutil.copytree(tiny_encoder, tmp_path / "checkpoint"))


def load(checkpoint: Path, options: str = "dtype=int8"):
    return load_encoder(f"hf:{checkpoint}?{options}", device="cpu")


def test_a_layer_is_what_its_integers_say():
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, 24)
    layer = RowLinear(linear, LastStates())
    states = torch.randn(2, 5, 48) + 3
    # In float64, by the definition: least and greatest value of a row are 0 and 255 steps above its least.
    rows = states.double().reshape(10, 48)
    low, step = rows.amin(1, keepdim=True), (rows.amax(1, keepdim=True) - rows.amin(1, keepdim=True)) / 255
    inputs = ((rows - low) / step).round() * step + low
    scale = linear.weight.detach().double().abs().amax(1, keepdim=True) / 127
    weight = (linear.weight.detach().double() / scale).round() * scale
    expected = (inputs @ weight.T + linear.bias.detach().double()).reshape(2, 5, 24)
    found = layer(states)
    assert found.dtype == torch.float32
    assert layer.weight.dtype == torch.int8
    # A value on the edge of two steps may fall to either side: a step in one input is 0.01 of a weight of 0.14.
    torch.testing.assert_close(found.double(), expected, atol=4e-3, rtol=0)
    assert (found - linear(states)).abs().max() > 1e-4  # it does round


def test_a_row_does_not_depend_on_the_others():
    torch.manual_seed(0)
    layer = RowLinear(torch.nn.Linear(32, 16), LastStates())
    rows = torch.randn(40, 32) * torch.logspace(-6, 6, 40)[:, None]
    together = layer(rows)
    for row in (0, 7, 39):
        size = max(1.0, float(rows[row].abs().max()))  # the last bits of a sum in float32 depend on its blocks
        torch.testing.assert_close(
            layer(rows[row : row + 1].clone())[0] / size, together[row] / size, rtol=0, atol=1e-6
        )


@table("row", [[0.0] * 32, [5.0] * 32, [5.0] * 31 + [5.0000005], [1e-38] * 32, [-3e38, 3e37] * 16])
def test_rows_of_no_range_or_much(row):
    linear = torch.nn.Linear(32, 16)
    found = RowLinear(linear, LastStates())(torch.tensor([row]))
    scale = max(1.0, max(map(abs, row)))
    torch.testing.assert_close(found / scale, linear(torch.tensor([row])) / scale, atol=0.05, rtol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_so_in_its_row_alone(bad):
    rows = torch.randn(3, 32)
    rows[1, 7] = bad
    finite = RowLinear(torch.nn.Linear(32, 16), LastStates())(rows).isfinite()
    assert finite.all(1).tolist() == [True, False, True]
    assert not finite[1].any()


def test_layers_of_one_parent_quantise_the_same_states_once():
    latest = LastStates()
    one, other = (RowLinear(torch.nn.Linear(32, 8), latest) for _ in range(2))
    states = torch.randn(4, 32)
    one(states)
    kept = latest.quantise(states)[0]
    other(states)
    assert latest.quantise(states)[0] is kept
    assert not torch.equal(one(states + 1), one(states))


def test_an_embedding_is_near():
    embedding = torch.nn.Embedding(50, 16)
    found = RowEmbedding(embedding.weight)(torch.tensor([[3, 49], [0, 3]]))
    expected = embedding(torch.tensor([[3, 49], [0, 3]]))
    step = embedding.weight.abs().amax(1)[[3, 49, 0, 3]].reshape(2, 2, 1) / 127
    assert ((found - expected).abs() <= step / 2 + 1e-6).all()


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_near_to_float32_and_in_its_space(checkpoint, cache, pooling):
    exact, ours = (load(checkpoint, f"dtype={d}&pooling={pooling}") for d in ("float32", "int8"))
    ours.spec.require(exact.spec)
    assert ours.spec.dtype == "int8"
    for role in ("query", "document"):
        cosines = (encode_matrix(ours, ITEMS, role) * encode_matrix(exact, ITEMS, role)).sum(axis=1)
        assert 0.998 < cosines.min() < 1


def test_every_layer_and_embedding_is_in_eight_bits(checkpoint, cache):
    model = load(checkpoint).model
    kinds = [type(module) for module in model.modules()]
    assert torch.nn.Linear not in kinds
    assert torch.nn.Embedding not in kinds
    assert kinds.count(RowLinear) >= 12
    assert all(not tensor.is_meta for table in (model.parameters(), model.buffers()) for tensor in table)


def test_exported_once_and_read_from_there(checkpoint, cache):
    first = encode_matrix(load(checkpoint), ITEMS, "document")
    [export] = cache.iterdir()  # and nothing half-written beside it
    assert export.suffix == ".safetensors"
    assert export.stat().st_mode & 0o044
    written = export.stat().st_mtime_ns
    np.testing.assert_array_equal(encode_matrix(load(checkpoint), ITEMS, "document"), first)
    assert export.stat().st_mtime_ns == written
    # The file is what is read: a weight changed in it changes the vectors.
    held = load_file(export)
    held["encoder.layer.1.output.LayerNorm.weight"][:16] *= 2
    save_file(held, export)
    assert (encode_matrix(load(checkpoint), ITEMS, "document") * first).sum(axis=1).max() < 0.9999


def test_other_weights_or_another_configuration_are_another_export(checkpoint, cache, tmp_path):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    load(checkpoint), load(copy)
    assert len(list(cache.iterdir())) == 1  # the same weights elsewhere
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    relu = encode_matrix(load(copy), ITEMS, "document")
    assert len(list(cache.iterdir())) == 2
    exact = encode_matrix(load(copy, "dtype=float32"), ITEMS, "document")
    assert (relu * exact).sum(axis=1).min() > 0.998
    weights = load_file(copy / "model.safetensors")
    save_file({key: value * 0.9 for key, value in weights.items()}, copy / "model.safetensors", {"format": "pt"})
    load(copy)
    assert len(list(cache.iterdir())) == 3


def test_a_damaged_export_is_made_again_and_said(checkpoint, cache, caplog):
    first = encode_matrix(load(checkpoint), ITEMS, "document")
    [export] = cache.iterdir()
    for damage in (lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[100:]):
        export.write_bytes(damage(export.read_bytes()))
        with caplog.at_level(logging.WARNING, "crosslens"):
            caplog.clear()
            np.testing.assert_array_equal(encode_matrix(load(checkpoint), ITEMS, "document"), first)
        assert "is damaged" in caplog.text


def test_tied_embeddings_stay_one(tmp_path, cache):
    from transformers import T5Config, T5EncoderModel

    size = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    config = T5Config(vocab_size=90, feed_forward_proj="gated-gelu", **size)
    model = T5EncoderModel(config).eval()
    ids, mask = torch.randint(0, 90, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    with torch.inference_mode():
        expected = model(ids, mask).last_hidden_state
        made = int8.open_int8(config, "tied", lambda: model, lambda: T5EncoderModel(config)).eval()
        found = made(ids, mask).last_hidden_state
    assert made.shared is made.encoder.embed_tokens
    cosines = torch.nn.functional.cosine_similarity(found, expected, dim=-1)
    assert 0.995 < cosines.min() < 1


def test_nan_in_the_weights_is_named(checkpoint, cache, tmp_path):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    weights["encoder.layer.0.intermediate.dense.bias"][3] = float("nan")
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(NotFinite, match="in int8 gave vectors that are not finite for 0, 1"):
        encode_matrix(load(copy), ITEMS, "document")


def test_a_cache_that_cannot_be_written(checkpoint, cache, tmp_path):
    (tmp_path / "cache").write_text("a file where the directory should be")
    with pytest.raises(InputError, match=r"the int8 form of the checkpoint takes \d+ MB; set CROSSLENS_CACHE"):
        load(checkpoint)


def test_only_on_a_cpu_that_multiplies_exactly(checkpoint, cache, monkeypatch):
    with pytest.raises(InputError, match="dtype=int8 is for CPUs, not cuda; there take bfloat16 or float16"):
        resolve_dtype("int8", torch.device("cuda"))
    genuine = int8.multiply_int8

    def saturating(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return genuine(left, right).clamp(max=127 * 127 * 100)

    int8.require_exact.cache_clear()
    monkeypatch.setattr(int8, "multiply_int8", saturating)
    with pytest.raises(InputError, match="dtype=int8 needs a CPU with VNNI"):
        load(checkpoint)
    monkeypatch.undo()
    int8.require_exact()


def test_an_unknown_precision_lists_the_known(checkpoint):
    with pytest.raises(InputError, match=r"dtype.*int4.*int8"):
        load(checkpoint, "dtype=int4")


def test_two_processes_at_once(checkpoint, cache):
    processes = multiprocessing.get_context("fork")
    together, answers = processes.Barrier(2), processes.SimpleQueue()

    def encode() -> None:
        torch.set_num_threads(1)  # the threads of the parent are not here
        together.wait(60)
        answers.put(encode_matrix(load(checkpoint), [Item("a", "The cat")], "query").tobytes())

    jobs = [processes.Process(target=encode) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert answers.get() == answers.get() != b""
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("usual", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("times", "said"), [(2.3, ["2.3 times as long"]), (0.8, [])])
def test_one_line_says_where_the_usual_precision_is_faster(checkpoint, cache, monkeypatch, caplog, usual, times, said):
    dtypes = {"auto": usual, "int8": torch.int8}
    monkeypatch.setattr("crosslens.checkpoints.open.resolve_dtype", lambda precision, _: dtypes[precision])
    monkeypatch.setattr(int8, "compare_speed", {usual: times}.__getitem__)
    int8.warn_if_slower.cache_clear()
    for _ in range(2):
        load(checkpoint)
    lines = [record.getMessage() for record in caplog.records if f"slower than {str(usual)[6:]}" in record.getMessage()]
    assert len(lines) == len(said)
    assert all(map(str.__contains__, lines, said))
