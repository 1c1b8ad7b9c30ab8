"""collections/base.py: documents held in memory for rerankers."""

from __future__ import annotations

import pytest
from crosslens.errors import InputError
from crosslens.multilingual.collections.base import fetch_documents
from crosslens.multilingual.collections.registry import load_collection
from stand_ins import small_collections as cases


def test_documents_held_for_rerankers(tmp_path):
    records = ({"id": str(i), "text": f"text {i}"} for i in range(50))
    collection = load_collection(cases.put(tmp_path / "docs.jsonl", *records))
    held = fetch_documents(collection, ["7", "3", "7"])
    assert [item.text for item in held.get(["7", "3", "7"])] == ["text 7", "text 3", "text 7"]
    with pytest.raises(InputError, match="no documents with the ids 4"):
        held.get(["3", "4"])
    with pytest.raises(InputError, match="2 of 3 documents are not in the collection .*: 88, 99"):
        fetch_documents(collection, ["3", "99", "88"])
    assert fetch_documents(collection, []).get([]) == []
