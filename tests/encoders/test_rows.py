"""Batches taken apart and put together, of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from crosslens.encoders.base import EncoderSpec, NotFinite, check_finite
from crosslens.encoders.rows import join_rows, select_terms, split_rows, take_floats
from crosslens.items import Batch, Dense, Multi, Sparse

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
