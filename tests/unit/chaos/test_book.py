"""What the book calls lost, told, stored twice and silent."""

from dataclasses import replace

from chaos.book import Book, Delay, Gap, Sent, Stored


def sent(*seqs, session="s", shard=0, t="MESSAGE_CREATE"):
    return [Sent(n=seq, time=float(seq), shard=shard, session=session, seq=seq, t=t, sha256=f"{seq}") for seq in seqs]


def stored(*seqs, session="s", shard=0, late=0.5):
    return [Stored(time=seq + late, shard=shard, session=session, seq=seq, sha256=f"{seq}") for seq in seqs]


def closed(*steps, through=99):
    book = Book()
    for step in steps:
        step(book)
    return book.close(through)


def test_what_was_sent_and_stored_is_fine_in_either_order():
    window = closed(lambda b: b.stored(stored(1)), lambda b: b.sent(sent(1, 2)), lambda b: b.stored(stored(2)))
    assert (window.sent, window.received, window.lost, window.twice) == (2, 2, [], [])
    assert window.delays == [Delay(1.0, 0, 0.5), Delay(2.0, 0, 0.5)]


def test_other_bytes_than_were_sent_are_found_in_either_order():
    other = [replace(message, sha256="other") for message in stored(1, 2)]
    steps = [lambda b: b.stored(other[:1]), lambda b: b.sent(sent(1, 2)), lambda b: b.stored(other[1:])]
    assert closed(*steps).altered == ["s:1 (MESSAGE_CREATE, shard 0)", "s:2 (MESSAGE_CREATE, shard 0)"]


def test_what_is_not_stored_is_lost():
    window = closed(lambda b: b.sent(sent(1, 2, 3)), lambda b: b.stored(stored(1, 3)))
    assert window.lost == ["s:2 (MESSAGE_CREATE, shard 0)"]


def test_what_lies_in_a_told_gap_is_told_and_not_lost():
    window = closed(lambda b: b.sent(sent(1, 2, 3)), lambda b: b.stored(stored(1)), lambda b: b.gap(Gap("s", 2)))
    assert (window.lost, window.told, window.gaps) == (["s:2 (MESSAGE_CREATE, shard 0)"], 1, 1)


def test_a_gap_of_another_session_explains_nothing():
    window = closed(lambda b: b.sent(sent(1)), lambda b: b.gap(Gap("other", 0)))
    assert len(window.lost) == 1


def test_what_is_stored_again_is_told_apart_even_windows_later():
    book = Book()
    book.sent(sent(1))
    book.stored(stored(1))
    assert book.close(1).twice == []
    book.stored(stored(1))
    assert book.close(1).twice == ["s:1"]


def test_what_was_sent_after_the_end_of_the_window_belongs_to_the_next():
    book = Book()
    book.sent(sent(1, 2))
    book.stored(stored(1))
    assert book.missing(1) == 0
    assert book.close(1).lost == []
    assert len(book.close(2).lost) == 1


def test_the_longest_silence_is_that_of_one_shard():
    book = Book()
    book.stored(
        [*stored(1, session="a", shard=0), *stored(1, 2, 3, session="b", shard=1), *stored(9, session="a", shard=0)]
    )
    window = book.close(99)
    assert (window.silence, window.silent_shard) == (8.0, 0)


def test_resumed_is_no_event():
    assert closed(lambda b: b.sent(sent(1, t="RESUMED"))).lost == []
