"""A digest of a collection's files: it is another one wherever a file changes that the documents come from."""

from __future__ import annotations

import os

from crosslens.multilingual.collections.digest import digest_files
from crosslens.multilingual.collections.registry import load_collection
from stand_ins.query_writer import make_documents, write_collection


def test_a_digest_follows_links_and_leaves_out_what_is_made_of_the_collection(tmp_path):
    source = write_collection(tmp_path / "source", make_documents(3))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (source / "linked").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(source)  # a circle
    found = []

    def digest(name=str(source)):
        found.append(digest_files(load_collection(name), name, [source / "made"]))
        return found[-1]

    assert digest() == digest()
    (source / "made").mkdir()
    (source / "made" / "docs.jsonl").touch()
    assert digest() == found[0]
    (elsewhere / "more.jsonl").touch()
    os.utime(elsewhere / "more.jsonl", (1, 1))
    digest()
    os.utime(elsewhere / "more.jsonl", (2, 2))
    digest()
    digest(f"{source}/docs.jsonl")  # without topics
    assert len(set(found)) == 4
    assert digest("demo") is None
