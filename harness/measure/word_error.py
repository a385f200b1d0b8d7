"""How far a recogniser's words lie from what was said."""

from __future__ import annotations


def word_error_ratio(said: str, heard: str) -> float:
    """Words replaced, left out or made up, for each word that was said. 0: the same words; it may exceed 1. Nothing said: 0 or infinity."""
    wanted, found = said.split(), heard.split()
    if not wanted:
        return float("inf") if found else 0.0
    # Levenshtein's distance over words, one row at a time.
    row = list(range(len(found) + 1))
    for place, word in enumerate(wanted, start=1):
        left, row[0] = row[0], place
        for other, heard_word in enumerate(found, start=1):
            left, row[other] = row[other], min(row[other] + 1, row[other - 1] + 1, left + (word != heard_word))
    return row[-1] / len(wanted)
