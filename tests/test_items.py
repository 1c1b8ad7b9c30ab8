"""items.py: ids seen before, at a few bytes each."""

from __future__ import annotations

from crosslens.items import SeenIds
from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.lists(st.text(min_size=1, max_size=3), max_size=300))
@settings(deadline=None)
def test_ids_seen_before(given_ids):
    seen, plain = SeenIds(merge_at=16), set()
    for id in given_ids:
        assert seen.add(id) == (id in plain)
        plain.add(id)
