"""N-gram drafts: the longest, most recent earlier occurrence of the text's end, found without rescanning."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orthrus_mlx.decoding.ngram import LEAST_ORDER, MOST_ORDER, NGramIndex

texts = st.lists(st.integers(0, 2), max_size=60)


def test_what_followed_before_is_offered():
    assert NGramIndex([1, 2, 3, 4, 5, 6, 7, 2, 3, 4]).find(3) == ([5, 6, 7], 3)


def test_a_new_ending_has_no_match():
    assert NGramIndex([1, 2, 3, 4, 1, 2, 4]).find(5) == ((), 0)
    assert NGramIndex([1, 2]).find(5) == ((), 0)
    assert NGramIndex([1, 2, 3, 1, 2, 3]).find(0) == ((), 0)


def test_of_equal_matches_the_most_recent_counts():
    assert NGramIndex([9, 1, 2, 3, 4, 8, 1, 2, 3, 5, 7, 1, 2, 3]).find(1) == ([5], 3)


def test_a_longer_match_beats_a_more_recent_one():
    assert NGramIndex([6, 1, 2, 3, 4, 8, 1, 2, 3, 5, 6, 1, 2, 3]).find(1) == ([4], 4)


def test_a_repetition_goes_on():
    assert NGramIndex([1, 2, 1, 2, 1, 2]).find(5) == ([1, 2, 1, 2, 1], 4)


def brute_force(text: list[int], most: int) -> tuple[list[int], int]:
    """Every earlier end compared, the rule written out: longest (up to MOST_ORDER), then most recent, of the last 8."""
    best: tuple[int, int] | None = None
    ends = [e for e in range(len(text) - 2, 1, -1) if text[e - 2 : e + 1] == text[-3:]][:8]
    for end in ends:
        order = 0
        while order < MOST_ORDER and order <= end and text[end - order] == text[-1 - order]:
            order += 1
        if best is None or order > best[0]:
            best = order, end
    if best is None or len(text) < LEAST_ORDER:
        return [], 0
    follow = list(text[best[1] + 1 :])
    while len(follow) < most:
        follow.append(follow[len(follow) - (len(text) - best[1] - 1)])
    return follow[:most], best[0]


@settings(max_examples=300, deadline=None)
@given(texts, st.integers(1, 31), st.integers(0, 60))
def test_matches_are_those_of_a_search_of_the_whole_text(text, most, cut):
    index = NGramIndex(text[:cut])
    for token in text[cut:]:
        index.extend([token])
    tokens, order = index.find(most)
    assert len(index) == len(text)
    assert (list(tokens), order) == brute_force(text, most)
