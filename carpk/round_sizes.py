"""Round sizes of arrays: a patient more, or one with a sample more, needs no other program."""

from __future__ import annotations


def rounded(patients: int) -> int:
    """The number that so many patients are filled up to: the next multiple of 5, from 40 on of
    10; up to 10 they stay as they are, since there those who fill up would weigh too much.

    >>> [rounded(n) for n in (7, 10, 11, 21, 40, 41, 90, 2000)]
    [7, 10, 15, 25, 40, 50, 90, 2000]
    """
    each = 1 if patients <= 10 else 5 if patients < 40 else 10
    return -(-patients // each) * each


def room_for(rows: int) -> int:
    """The room that is made for so many rows of the patient who has most: an even number, from 16
    on a multiple of 4, from 40 on of 8.

    >>> [room_for(n) for n in (0, 1, 5, 13, 16, 17, 41)]
    [0, 1, 6, 14, 16, 20, 48]
    """
    each = 1 if rows <= 1 else 2 if rows <= 16 else 4 if rows <= 40 else 8
    return -(-rows // each) * each
