"""Topics that are for testing are no training data: test sets by their name, and topics of held-out collections."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import InputError, list_few
from ...items import Item
from ...multilingual.collections.base import Collection
from ...multilingual.collections.registry import load_collection
from .checks import normalise
from .synthesize import list_wordings

TEST = "test"
log = logging.getLogger("crosslens")


def is_test_set(data: str | Path, name: str = "", split: str = "") -> bool:
    """Whether a word of the last part of a path, of a collection's `name`, or of its `split` is `test`."""
    parts = (Path(str(data).partition("?")[0]).name, name, split)
    return any(TEST in re.split(r"[^a-z0-9]+", part.casefold()) for part in parts)


def refuse_test_set(data: str | Path, collection: Collection | None = None) -> None:
    """`InputError` for what is called a test set: a folder or file, a SPEC or its split."""
    name, split = (collection.name, getattr(collection, "split", None) or "") if collection is not None else ("", "")
    if is_test_set(data, name, split):
        raise InputError(
            f"{data} is a test set by its name, and its topics are no training data; where they are meant to be, "
            "`crosslens mine` and `convert` take them with --force"
        )


def warn_of_common(dev: Iterable[Item], name: str, trained_on: Iterable[Item]) -> None:
    """Warn where queries of dev data, which is named, are among those that are trained on.

    They are the same by their text, as `checks.normalise` gives it, and without text by their id.
    """
    asked = list(map(_find_key, dev))
    known = set(asked).intersection(map(_find_key, trained_on))
    if common := sum(each in known for each in asked):
        log.warning(
            "%d of the %d queries of %s are trained on, too: what it says of a step holds for these",
            common,
            len(asked),
            name,
        )


def _find_key(query: Item) -> str:
    return normalise(query.text) if query.text else query.id


def refuse_held_out(queries: Sequence[Item], names: Sequence[str]) -> None:
    """`InputError` for queries that are topics of one of the collections, which are named.

    They are by their text, as `checks.normalise` gives it, whatever the wording of the topic; without text by their id.
    An id alone says little of those that have one: many collections count from 1.
    """
    held: list[tuple[str, set[str], set[str]]] = []
    for name in names:
        collection = load_collection(name)
        texts = set(map(normalise, list_wordings(collection)))
        if not texts:
            raise InputError(f"--held-out {name} has no topics to hold out")
        held.append((name, texts, {query.id for query in collection.queries()}))
    for name, texts, ids in held:
        same = [each.id for each in queries if (normalise(each.text) in texts if each.text else each.id in ids)]
        if same:
            raise InputError(
                f"{len(same)} queries are topics of the held-out {name}: {list_few(same)}; leave them out, or --force"
            )
