"""The topics of a collection that are judged: what all that trains on judgements, or measures by them, goes by."""

from __future__ import annotations

from typing import Any

from ...items import Item
from ...multilingual.collections.base import Collection
from ...multilingual.languages import fill_languages
from ...runs import Qrels


def select_judged(collection: Collection, **wording: Any) -> tuple[list[Item], Qrels]:
    """The topics for which a document has a grade above 0, in their order, and the judgements of these topics.

    `wording` (`fields`, `lang`, `source`) is that of the topics, as `Collection.queries` takes it. `MissingPart` where
    the collection has no judgements.
    """
    qrels = collection.qrels()
    asked = [each for each in collection.queries(**wording) if any(g > 0 for g in qrels.get(each.id, {}).values())]
    return list(fill_languages(asked)), {each.id: qrels[each.id] for each in asked}
