"""Messages as texts and media in turn, and tokens estimated without a tokenizer."""

from __future__ import annotations

from crosslens.multilingual.judges.messages import Attachment, Message, Passage, Seam, TokenEstimate
from stand_ins.table import table


def test_texts_that_follow_each_other_are_one_and_media_stand_where_they_were():
    picture, other = Attachment("image", b"1"), Attachment("image", b"2")
    message = Message(("a ", Passage("b"), Seam.SEAM, picture, other, "", Passage(""), picture, "c"))
    assert message.join_texts(str.upper) == ["A B", picture, other, picture, "C"]
    assert Message(()).join_texts(str.upper) == []


@table("text", ["", "plain words", "naïve Ключ", "猫と😀", "half \ud83d surrogate"])
def test_the_estimate_cuts_whole_characters_to_at_most_so_many_tokens(text):
    estimate = TokenEstimate()
    assert estimate.cut(text, estimate.count(text)) == text
    for tokens in range(estimate.count(text)):
        cut = estimate.cut(text, tokens)
        assert estimate.count(cut) <= tokens
        assert text.replace("\ud83d", "").startswith(cut)
