"""Products of equal rows: equal to the last bit, wherever the rows lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from crosslens.indexes.products import ROWS, multiply_rows
from stand_ins.table import table

SIZE = ROWS["cpu"]


@pytest.mark.parametrize("dim", [2, 7, 24, 100, 384, 1000])
@table("queries", [1, 3, 5, 17, 100])
@table("by_query", [False, True])
def test_equal_rows_have_equal_products_wherever_they_lie(dim: int, queries: int, by_query: bool) -> None:
    random = np.random.default_rng(dim + queries)
    row = torch.from_numpy(random.standard_normal(dim).astype(np.float32))
    turned = torch.from_numpy(random.standard_normal((dim, queries)).astype(np.float32))
    once = multiply_rows(row[None], turned, by_query)
    for count in (6, 63, 301, SIZE, SIZE + 1, 3 * SIZE + 77):
        many = multiply_rows(row.expand(count, dim).contiguous(), turned, by_query)
        assert (many == once).all(), count
        assert many.T.is_contiguous() if by_query else many.is_contiguous()


def test_products_are_inner_products() -> None:
    random = np.random.default_rng(0)
    rows = torch.from_numpy(random.standard_normal((SIZE + 9, 24)).astype(np.float32))
    turned = torch.from_numpy(random.standard_normal((24, 3)).astype(np.float32))
    for by_query in (False, True):
        torch.testing.assert_close(multiply_rows(rows, turned, by_query), rows @ turned)
        assert multiply_rows(rows[:0], turned, by_query).shape == (0, 3)
