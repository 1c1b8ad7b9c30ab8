"""Inner products that are the same for equal rows: what decides that ties are ties."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Rows a product, always so many. A matrix product adds up in another order at the edges of a matrix and for other
# sizes, so that products of equal rows would differ in their last bits by where they lie.
ROWS = {"cpu": 512, "cuda": 16384, "mps": 16384}
# Queries a product, a multiple of so many: with 5 on a processor with AVX2, rows would differ by where they lie, and
# the tokens of a query by how many others there are.
COLUMNS = 64


def multiply_rows(rows: torch.Tensor, turned: torch.Tensor, by_query: bool = False) -> torch.Tensor:
    """Inner products float32 [n, q] of `rows` float32 [n, dim] with `turned` float32 [dim, q].

    Equal rows have equal products with a query, to the last bit, within a call and across calls with the same `turned`
    and `by_query`: whether those of one query lie side by side in memory, or those of one row.
    """

    import torch

    asked = turned.shape[1]
    if asked > 1 and asked % COLUMNS:
        turned = torch.nn.functional.pad(turned, (0, -asked % COLUMNS))

    def make(count: int) -> torch.Tensor:
        shape = (turned.shape[1], count) if by_query else (count, turned.shape[1])
        made = torch.empty(shape, device=rows.device)
        return made.T if by_query else made

    size = ROWS[rows.device.type]
    products = make(len(rows))
    whole = len(rows) // size * size
    for start in range(0, whole, size):
        torch.mm(rows[start : start + size], turned, out=products[start : start + size])
    if whole < len(rows):
        last = torch.zeros(size, rows.shape[1], device=rows.device)
        last[: len(rows) - whole] = rows[whole:]
        products[whole:] = torch.mm(last, turned, out=make(size))[: len(rows) - whole]
    if turned.shape[1] > asked:
        products = products[:, :asked] if by_query else products[:, :asked].contiguous()
    return products
