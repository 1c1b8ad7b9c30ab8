"""Reading rankings and labels out of what models say, well-formed or not."""

from __future__ import annotations

import time
from collections import Counter

from crosslens.multilingual.judges.answers import read_label, read_ranking
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.table import table

NUMBERS = tuple(map(str, range(1, 6)))
LETTERS = tuple("ABCDE")
NOTHING = {"empty", "refused", "unclosed_thought", "unreadable"}


def ranked(text, labels):
    """The labels in the order read, and what was counted."""
    count = Counter()
    order = read_ranking(text, labels, count)
    assert sorted(order) == list(range(len(labels)))
    return "".join(labels[place] for place in order), dict(count)


RANKINGS = [
    ("[2] > [1] > [3] > [5] > [4]", NUMBERS, "21354", []),
    ("2] > [1] > [3] > [5] > [4]", NUMBERS, "21354", []),  # the first bracket was opened for it
    ("2>1>3>5>4", NUMBERS, "21354", []),
    ("2,1,3,5,4", NUMBERS, "21354", []),
    ("2, 1, 3, 5, 4.", NUMBERS, "21354", []),
    ("2\n1\n3\n5\n4\n", NUMBERS, "21354", []),
    ("[5, 4, 3, 2, 1]", NUMBERS, "54321", []),
    ('["B", "A", "E", "D", "C"]', LETTERS, "BAEDC", []),
    ("**[C]** > **[A]** > [B] = [E] > [D]", LETTERS, "CABED", []),
    ("(B) > (A) > (C) > (D) > (E)", LETTERS, "BACDE", []),
    ("B A C E D", LETTERS, "BACED", []),
    ("Passage B, Passage A, Passage C, D and E", LETTERS, "BACDE", []),
    ("Passage B > A > E > D > C", LETTERS, "BAEDC", []),
    ("1. Passage 3\n2. Passage 1\n3. Passage 2\n4. Passage 5\n5. Passage 4", NUMBERS, "31254", []),
    ("1. 3\n2. 1\n3. 2\n4. 5\n5. 4", NUMBERS, "31254", []),
    ("1. [3]\n2. [1]\n3. [2]\n4. [5]\n5. [4]", NUMBERS, "31254", []),
    ("b > a > c > d > e", LETTERS, "BACDE", []),
    ("passage c > a > b > d > e", LETTERS, "CABDE", []),
    ("[b] > [a] > [c] > [e] > [d]", LETTERS, "BACED", []),
    # Other scripts.
    ("[٢] > [١] > [٣] > [٥] > [٤]", NUMBERS, "21354", ["foreign_digits"]),
    ("۲ > ۱ > ۳ > ۵ > ۴", NUMBERS, "21354", ["foreign_digits"]),
    ("[२] > [१] > [३] > [५] > [४]", NUMBERS, "21354", ["foreign_digits"]),
    ("【２】＞【１】＞【３】＞【５】＞【４】", NUMBERS, "21354", ["foreign_digits"]),
    ("Ｂ＞Ａ＞Ｃ＞Ｄ＞Ｅ", LETTERS, "BACDE", []),
    ("段落B > 段落A > C、D、E", LETTERS, "BACDE", []),
    ("第3段最相关，其次是第1段、第2段、第4段和第5段。", NUMBERS, "31245", []),
    ("Отрывок 3 > отрывок 1 > отрывок 2 > отрывок 5 > отрывок 4", NUMBERS, "31254", []),
    ("متن B > متن A > متن C > D > E", LETTERS, "BACDE", []),
    # The article, the pronoun, and quantities are no identifiers.
    ("A better ranking would be B > A > C > D > E", LETTERS, "BACDE", []),
    ("A passage on cats should win: C > A > B > D > E", LETTERS, "CABDE", []),
    ("A is more relevant than B", LETTERS, "ABCDE", ["missing"]),
    ("I think B is best, then A.", tuple("ABI"), "BAI", ["missing"]),
    ("I'd say [I] > [B], as A user would.", tuple("ABI"), "IBA", ["missing"]),
    ("Of the 5 passages, 3 is best.", NUMBERS, "31245", ["missing"]),
    ("It is 2, with 90% confidence and a score of 0.5 or 4th at best.", NUMBERS, "21345", ["missing"]),
    # Not quite as asked.
    ("[9] > [2] > [1] > [3] > [4] > [5]", NUMBERS, "21345", ["out_of_range"]),
    ("[Z] > [B]", LETTERS, "BACDE", ["missing", "out_of_range"]),
    ("[2] > [2] > [1] > [3] > [5] > [4]", NUMBERS, "21354", ["duplicate"]),
    ("[4] > [4]", NUMBERS, "41235", ["duplicate", "missing"]),
    ("[3] > [1", NUMBERS, "31245", ["missing"]),
    ("The ranking [see note 3] is [2] > [1]", NUMBERS, "21345", ["missing"]),
    # Thoughts and tags.
    ("<think>[1] > [2]</think>[3] > [2] > [1] > [4] > [5]", NUMBERS, "32145", []),
    ("[1] comes first? No.</think>\n\n[3] > [2] > [1] > [4] > [5]", NUMBERS, "32145", []),
    ("<THINK>[1]</THINK><answer>[5] > [4]</answer> not [3]", NUMBERS, "54123", ["missing"]),
    ("<answer>[5] > [4] > [3] > [2] > [1]", NUMBERS, "54321", []),
    ("<think>[1] > [2] > [3]", NUMBERS, "12345", ["unclosed_thought"]),
    ("<think></think>", NUMBERS, "12345", ["empty"]),
    # Nothing to read.
    ("", NUMBERS, "12345", ["empty"]),
    (" \n\t", LETTERS, "ABCDE", ["empty"]),
    ("The cat sat on the mat.", LETTERS, "ABCDE", ["unreadable"]),
    ("[25] > [30]", NUMBERS, "12345", ["out_of_range", "unreadable"]),
    ("9" * 5000, NUMBERS, "12345", ["unreadable"]),
    ("I'm sorry, but I can't rank these 5 passages.", NUMBERS, "12345", ["refused"]),
    ("I cannot rank A.", LETTERS, "ABCDE", ["refused"]),
    ("I’m unable to do 3.", NUMBERS, "12345", ["refused"]),
    ("抱歉，我无法对这5个段落进行排序。", NUMBERS, "12345", ["refused"]),
    ("Извините, я не могу оценить 3 отрывка.", NUMBERS, "12345", ["refused"]),
    ("متأسفم، نمی‌توانم این ۵ متن را مرتب کنم.", NUMBERS, "12345", ["refused"]),
    ("Lo siento, no puedo ordenar los 5 pasajes.", NUMBERS, "12345", ["refused"]),
    ("Je suis désolé, je ne peux pas classer ces 5 passages.", NUMBERS, "12345", ["refused"]),
    ("Es tut mir leid, aber ich kann diese 5 Texte nicht ordnen.", NUMBERS, "12345", ["refused"]),
    ("申し訳ありませんが、5つの文章を並べ替えることはできません。", NUMBERS, "12345", ["refused"]),
    ("عذرًا، لا أستطيع ترتيب ٥ مقاطع.", NUMBERS, "12345", ["refused"]),
    # A refusal that answers all the same.
    ("I'm sorry if this is wrong: [2] > [1] > [3] > [4] > [5]", NUMBERS, "21345", []),
    ("Sorry for the delay. 2 > 1 > 3 > 4 > 5", NUMBERS, "21345", []),
]


def test_rankings_as_models_write_them():
    found = [(text, *ranked(text, labels)) for text, labels, _, _ in RANKINGS]
    assert found == [(text, order, dict.fromkeys(kinds, 1)) for text, _, order, kinds in RANKINGS]


def test_two_digits_are_one_identifier():
    labels = tuple(map(str, range(1, 21)))
    order = [20, 2, 12, 1, *(n for n in range(3, 20) if n != 12)]
    for form in ("[{}]", "{}", "Passage {}"):
        count = Counter()
        text = " > ".join(form.format(n) for n in order)
        assert [place + 1 for place in read_ranking(text, labels, count)] == order
        assert not count


YESNO, GRADES, AB = ("Yes", "No"), tuple("0123"), ("A", "B")
SETTLED = [
    ("Yes", YESNO, "Yes", []),
    ("no.", YESNO, "No", []),
    ("**Yes**, because there is no doubt.", YESNO, "Yes", []),
    ("The passage explains it, so yes", YESNO, "Yes", []),
    ("Not that I know; nothing notable.", YESNO, None, ["unreadable"]),
    ("Yesterday's noon", YESNO, None, ["unreadable"]),
    ("Not yes", YESNO, None, ["unreadable"]),
    ("Yes or no? The answer is no", YESNO, "No", []),
    ("I'm sorry, I have no access to it.", YESNO, None, ["refused"]),
    ("true", ("true", "false"), "true", []),
    ("It is false that it is true", ("true", "false"), "true", []),
    ("</think> false", ("true", "false"), "false", []),
    ("<think>true", ("true", "false"), None, ["unclosed_thought"]),
    ("", YESNO, None, ["empty"]),
    # Other languages.
    ("是的，回答了。", ("是", "否"), "是", []),
    ("答案：否", ("是", "否"), "否", []),
    ("这是一个关于猫的段落", ("是", "否"), None, ["unreadable"]),
    ("Да, отвечает.", ("Да", "Нет"), "Да", []),
    ("Когда нет данных, ответ: нет", ("Да", "Нет"), "Нет", []),
    ("خیر، پاسخ نمی‌دهد", ("بله", "خیر"), "خیر", []),
    ("sí", ("Sí", "No"), "Sí", []),
    ("si\u0301", ("Sí", "No"), "Sí", []),  # decomposed
    ("いいえ。", ("はい", "いいえ"), "いいえ", []),
    ("हां।", ("हाँ", "नहीं"), "हाँ", []),
    # Grades.
    ("##final score: 2", GRADES, "2", []),
    ("M: 3, T: 1, O: 2\n\n##final score: 1", GRADES, "1", []),
    ("score: 3 at first, but the final score is 2, not 3", GRADES, "2", []),
    ("Score:2.", GRADES, "2", []),
    ('{"final_score": 3, "trust": 1}', GRADES, "3", []),
    ("Final relevance score: **1**", GRADES, "1", []),
    ("##final score: 2\nWait. ##final score: 3", GRADES, "3", []),
    ("2/3", GRADES, "2", []),
    ("2 out of 3", GRADES, "2", []),
    ("2.0", GRADES, "2", []),
    ("On a scale of 0 to 3 this is a 1", GRADES, "1", []),
    ("1. The query asks for cats.\n2. The passage has dogs.\nHence 0", GRADES, "0", []),
    ("最终得分：３", GRADES, "3", ["foreign_digits"]),
    ("امتیاز نهایی: ۲", GRADES, "2", ["foreign_digits"]),
    ("Оценка: 3", GRADES, "3", []),
    ("2.5", GRADES, None, ["unreadable"]),
    ("Bewertung: 2,5", GRADES, None, ["unreadable"]),
    ("It had 1 cat. Final score: 7", GRADES, None, ["out_of_range", "unreadable"]),
    # Letters.
    ("B", AB, "B", []),
    ("[A]", AB, "A", []),
    ("a", AB, "A", []),
    ("Passage B is more relevant than passage A.", AB, "B", []),
    ("A cat is in B", AB, "B", []),
    ("Between A and B, the answer is B.", AB, "B", []),
    ("Not Relevant", ("Relevant", "Not Relevant"), "Not Relevant", []),
    ("Highly relevant!", ("Not Relevant", "Highly Relevant"), "Highly Relevant", []),
]


def settled(text, labels):
    """The label read, and what was counted."""
    count = Counter()
    place = read_label(text, labels, count)
    return None if place is None else labels[place], dict(count)


def test_labels_as_models_write_them():
    found = [(text, *settled(text, labels)) for text, labels, _, _ in SETTLED]
    assert found == [(text, label, dict.fromkeys(kinds, 1)) for text, _, label, kinds in SETTLED]


def test_what_follows_a_label_distinguishes_it_from_mentions():
    labels = tuple(map(str, range(1, 21)))
    assert read_label("12]</answer>", labels, Counter(), after="]</answer>") == 11
    assert read_label("so 3: it beats 5", labels, Counter(), after=":") == 2
    assert read_label("so 3 it beats 5", labels, Counter(), after=":") == 4


def test_counts_add_up_over_answers():
    count = Counter()
    for text in ("", "", "I cannot rank them", "[1]", "nothing"):
        read_ranking(text, NUMBERS, count)
    assert count == {"empty": 2, "refused": 1, "missing": 1, "unreadable": 1}


SHORT = (
    "[",
    "]",
    "A",
    "B",
    "I",
    "1",
    "2",
    "20",
    "٣",
    "５",
    "段落",
    "0.5",
    "Yes",
    "no",
    "'",
    "/",
    " > ",
    ", ",
    "\n",
    " ",
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
WORDS = ("1. ", "Passage ", "score: ", "final score: ", "I cannot ", "is more relevant")
PIECES = st.sampled_from((*SHORT, *TAGS, *WORDS))
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join))
LABELS = st.one_of(
    st.integers(1, 20).map(lambda n: tuple(map(str, range(1, n + 1)))),
    st.integers(1, 20).map(lambda n: tuple("ABCDEFGHIJKLMNOPQRST"[:n])),
    st.sampled_from([("Yes", "No"), ("是", "否"), GRADES, ("Да", "Нет"), ("हाँ", "नहीं"), ("not relevant", "relevant")]),
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=20, unique=True).map(tuple),
)


@given(text=TEXTS, labels=LABELS, after=st.sampled_from(["", "]", ":"]))
@settings(max_examples=400)
def test_any_text_gives_a_permutation_and_a_label_or_none(text, labels, after):
    count = Counter()
    assert sorted(read_ranking(text, labels, count)) == list(range(len(labels)))
    assert set(count.values()) <= {1}
    assert sum(count[kind] for kind in NOTHING) <= 1
    assert not (count["missing"] and sum(count[kind] for kind in NOTHING))
    count.clear()
    place = read_label(text, labels, count, after=after)
    assert place is None or 0 <= place < len(labels)
    assert sum(count[kind] for kind in NOTHING) == (place is None)


@given(
    order=st.permutations(range(20)),
    size=st.integers(2, 20),
    letters=st.booleans(),
    form=st.sampled_from(["[{}]", "Passage {}", "({})", "{}", "document [{}]", "**{}**"]),
    joint=st.sampled_from([" > ", ", ", ",", "\n", " >> ", ">", " = "]),
    frame=st.sampled_from(
        ["{}", "Ranking: {}", "<think>[1] > [2] > A</think>\n{}", "Here is the ranking:\n\n{}\n\nDone."]
    ),
)
@settings(max_examples=300)
def test_well_formed_rankings_are_read_as_written(order, size, letters, form, joint, frame):
    labels = tuple("ABCDEFGHIJKLMNOPQRST"[:size]) if letters else tuple(map(str, range(1, size + 1)))
    order = [place for place in order if place < size]
    count = Counter()
    text = frame.format(joint.join(form.format(labels[place]) for place in order))
    assert read_ranking(text, labels, count) == order
    assert not count


LONG = [
    "[",
    "A ",
    "1 ",
    "1,",
    "passage ",
    "score: ",
    "<think>",
    "<answer>",
    " ",
    "9",
    "[2] > ",
    "[a ",
    "1. a\n",
    "1-",
    "<",
]


@table("piece", [*LONG, "猫", "not yes ", "ich kann "])
def test_long_answers_take_linear_time(piece):
    text = (piece * 30_000)[:30_000]
    read_label(text[:100], LETTERS, Counter())
    for labels in (LETTERS, NUMBERS, YESNO):
        started = time.thread_time()
        read_ranking(text, labels, Counter())
        read_label(text, labels, Counter())
        assert time.thread_time() - started < 4  # quadratic ones took many; a busy machine takes 1
