"""The encoding engine: budgets, order, out-of-memory, bounded reading; batches taken apart and put together."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import scipy.sparse
import torch
from crosslens.encoders.base import EncoderSpec, NotFinite, check_finite
from crosslens.encoders.batching import (
    Budget,
    compute_batches,
    encode_windows,
    join_rows,
    plan_batches,
    select_terms,
    split_rows,
    take_floats,
)
from crosslens.errors import InputError
from crosslens.items import Batch, Dense, Item, Multi, Sparse
from hypothesis import given
from hypothesis import strategies as st

SPEC = EncoderSpec("fake:length", "0", ("text",), 1, normalized=False)


def in_parts(forward, inputs, names):
    """What `forward` gives for the inputs: in one batch, or in parts that the memory holds."""
    batches = compute_batches(inputs, [1] * len(inputs), names, forward, Budget(len(inputs)))
    return np.concatenate([made for _, made in batches])


@given(st.lists(st.integers(0, 50)), st.integers(1, 200))
def test_every_piece_is_in_one_batch_within_the_budget(costs, budget):
    made = list(plan_batches(costs, budget))
    assert sorted(row for batch in made for row in batch) == list(range(len(costs)))
    for batch in made:
        assert len(batch) == 1 or max(costs[row] for row in batch) * len(batch) <= budget
    longest = [max(costs[row] for row in batch) for batch in made]
    assert longest == sorted(longest, reverse=True)


def encoded(items, *, forward=None, window=4, budget=20, **options):
    def lengths(texts):
        return np.array([[len(text)] for text in texts], np.float32)

    return encode_windows(
        items,
        SPEC,
        prepare=lambda group: [item.text for item in group],
        cost=len,
        forward=forward or lengths,
        budget=budget,
        window=window,
        **options,
    )


@given(st.lists(st.text("ab", min_size=1, max_size=30), max_size=20), st.integers(1, 7))
def test_order_and_ids_are_kept(texts, window):
    items = [Item(str(n), text) for n, text in enumerate(texts)]
    found = [(doc, row[0]) for b in encoded(items, window=window) for doc, row in zip(b.ids, b.vectors, strict=True)]
    assert found == [(str(n), len(text)) for n, text in enumerate(texts)]


def test_no_more_than_a_window_is_read_beyond_the_one_at_work():
    read = 0

    def source():
        nonlocal read
        for n in range(100):
            read += 1
            yield Item(str(n), "text")

    with closing(encoded(source(), window=8)) as stream:
        for given in range(1, 4):
            next(stream)
            assert 8 * given <= read <= 8 * (given + 1)


def test_out_of_memory_halves_the_batch_and_names_what_never_fits():
    sizes = []

    def forward(texts):
        sizes.append(len(texts))
        if len(texts) > 3 or "huge" in texts:
            raise RuntimeError("CUDA error: out of memory")
        return np.array([[float(len(text))] for text in texts])

    texts = ["x" * n for n in range(1, 9)]
    assert in_parts(forward, texts, texts)[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert sizes[0] == 8
    assert max(size for size in sizes if size <= 3) > 1
    with pytest.raises(InputError, match="'d2' alone does not fit"):
        in_parts(forward, ["a", "huge"], ["d1", "d2"])


def test_a_budget_that_was_too_much_is_lower_for_the_rest_of_the_stream():
    tried = []

    def forward(texts):
        tried.append(len(texts) * max(map(len, texts)))  # padded
        if tried[-1] > 12:
            raise torch.OutOfMemoryError("out of memory")
        return np.array([[len(text)] for text in texts], np.float32)

    items = [Item(str(n), "x" * (n % 4 + 1)) for n in range(64)]
    found = list(encoded(items, forward=forward, window=16, budget=32))
    assert [row for batch in found for row in batch.vectors[:, 0]] == [n % 4 + 1 for n in range(64)]
    failed = [place for place, size in enumerate(tried) if size > 12]
    assert [tried[place] for place in failed] == [32, 16]  # found out once, and remembered
    assert failed == [0, 1]
    tried.clear()
    list(encoded(items, forward=forward, window=16, budget=32))
    assert tried[0] == 32  # another stream finds its own budget


def test_what_was_collated_for_a_larger_budget_is_collated_again():
    made, tried = [], []

    def collate(texts):
        made.append(len(texts))
        return texts

    def forward(texts):
        tried.append(len(texts))
        if len(texts) > 2:
            raise MemoryError
        return np.array([[len(text)] for text in texts], np.float32)

    items = [Item(str(n), "xx") for n in range(40)]
    found = list(encoded(items, forward=forward, window=40, budget=16, collate=collate))
    assert [row for batch in found for row in batch.vectors[:, 0]] == [2] * 40
    assert tried[:2] == [8, 4]
    assert set(tried[2:]) == {2}
    assert max(made[3:], default=0) <= 8


def test_memory_that_lacks_for_the_next_batch_is_there_after_this_one():
    """A batch made ahead, on the device, beside the one that is computed."""
    refused = []

    def collate(texts):
        if len(refused) < 3:
            refused.append(len(texts))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return texts

    items = [Item(str(n), "x" * (n % 3 + 1)) for n in range(40)]
    found = list(encoded(items, window=40, budget=16, collate=collate))
    assert [row for batch in found for row in batch.vectors[:, 0]] == [n % 3 + 1 for n in range(40)]
    assert len(refused) == 3

    def broken(texts):
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        list(encoded(items, window=40, budget=16, collate=broken))


def test_windows_end_where_their_weight_is_full():
    items = [Item(str(n), "x" * n) for n in (1, 2, 5, 1, 1, 1, 1, 9)]
    found = list(encoded(items, window=5, weight=lambda item: len(item.text)))
    assert [list(batch.ids) for batch in found] == [["1", "2", "5"], ["1", "1", "1", "1", "9"]]


def test_other_errors_pass_through():
    def forward(texts):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        in_parts(forward, ["a", "b"], ["a", "b"])


def test_what_is_empty_or_not_finite_is_named():
    with pytest.raises(InputError, match="'b' holds neither text nor image"):
        list(encoded([Item("a", "x"), Item("b", " ")]))
    for texts in ("a cat", ["a cat"]):
        with pytest.raises(InputError, match=r"an encoder takes a list of Items, .* and no str"):
            list(encoded(texts))
    with pytest.raises(NotFinite, match=r"not finite for b; try \?dtype=float32"):
        list(
            encoded(
                [Item("a", "x"), Item("b", "yy")],
                forward=lambda t: np.array([[np.nan if len(x) > 1 else 1] for x in t]),
            )
        )


IDS = ["a", "b", "c"]
RANDOM = np.random.default_rng(0)
BATCHES: dict[str, Batch] = {
    "dense": Dense(IDS, RANDOM.random((3, 4), np.float32)),
    "multi": Multi(IDS, [RANDOM.random((tokens, 4), np.float32) for tokens in (2, 1, 5)]),
    "sparse": Sparse(IDS, scipy.sparse.csr_matrix(np.eye(3, 4, 1, np.float32))),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_a_batch_is_its_rows_in_any_order(kind):
    batch = BATCHES[kind]
    spec = EncoderSpec("toy:x", "1", ("text",), 4, kind=kind)
    rows = split_rows(batch)
    turned = join_rows(IDS[::-1], rows[::-1], spec)
    assert type(turned) is type(batch)
    assert turned.ids == IDS[::-1]
    for row, again in zip(rows, split_rows(turned)[::-1], strict=True):
        np.testing.assert_array_equal(take_floats(row), take_floats(again))
        assert take_floats(again).dtype == np.float32
    if isinstance(turned, Sparse):
        assert turned.vectors.shape == (3, 4)
        assert turned.vectors.toarray().tolist() == batch.vectors.toarray()[::-1].tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", BATCHES)
def test_what_is_not_finite_is_named(kind):
    rows = [np.array(take_floats(row)) for row in split_rows(BATCHES[kind])]
    check_finite(IDS, rows, "toy:x", "float16")
    rows[1].ravel()[0] = np.nan
    with pytest.raises(NotFinite, match=r"toy:x in float16 .*not finite for b; try"):
        check_finite(IDS, rows, "toy:x", "float16")


def test_terms_are_those_above_zero_the_strongest_first_the_lower_of_equal_ones():
    weights = np.array([0, 2, 1, -1, 2, np.nan], np.float32)
    assert select_terms(weights)[0].tolist() == [1, 2, 4, 5]  # what is no number stays, to be found
    assert select_terms(weights[:5], 1)[0].tolist() == [1]
    terms, values = select_terms(weights[:5], 2)
    assert (terms.tolist(), values.tolist()) == ([1, 4], [2, 2])
    assert (terms.dtype, values.dtype) == (np.int32, np.float32)
