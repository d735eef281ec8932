"""Text with a row a line: every way in which people write one."""

import polars as pl
import pytest

from metaprior.errors import InputError
from metaprior.tables.reading import delimited
from metaprior.tables.reading.delimited import fields

TWO = ["g", "x"]
ROWS = [("a", "1"), ("b", "2")]


def said(text):
    """Names, rows and notes of a text."""
    found = fields(text, "t.csv")
    return found.names, found.frame.rows(), " ".join(found.notes), found.decimal


PLAIN = [
    # what is special, the text, a note on it
    ("commas", "g,x\na,1\nb,2\n", ""),
    ("no last end of line", "g,x\na,1\nb,2", ""),
    ("semicolons", "g;x\na;1\nb;2\n", "';' between columns"),
    ("tabs", "g\tx\na\t1\nb\t2\n", "tabs between columns"),
    ("bars", "g|x\na|1\nb|2\n", "'|' between columns"),
    ("runs of spaces", " g   x\n a   1 \n b 2\n", "spaces between columns"),
    ("blanks and tabs", "g \t x\na\t 1\nb  2\n", "spaces between columns"),
    ("CR", "g,x\ra,1\rb,2\r", ""),
    ("CRLF", "g,x\r\na,1\r\nb,2\r\n", ""),
    ("all kinds of ends", "g,x\ra,1\r\nb,2\n", ""),
    ("quotes", '"g","x"\n"a","1"\n"b","2"\n', ""),
    ("a line that names the separator", "sep=|\ng|x\na|1\nb|2\n", "'|'"),
    ("an unusual separator that is named", "SEP=:\r\ng:x\r\na:1\r\nb:2\r\n", "':'"),
    ("a tab that is named", "sep=\t\ng\tx\na\t1\nb\t2\n", "tabs"),
    ("a separator beyond ASCII", "sep=§\ng§x\na§1\nb§2\n", "'§'"),
    ("comments above", "# by hand\n#\ng,x\na,1\nb,2\n", "2 lines that begin with '#'"),
    ("a comment within", "g,x\na,1\n# pause\nb,2\n", "comments, which begin with '#': line 3"),
    ("names in a comment", "# made today\n# g x\na 1\nb 2\n", "line that begins with '#'"),
    ("blank lines", "\n\ng,x\n\na,1\n  \nb,2\n", "without values: lines 4 and 6"),
    ("a blank last line", "g,x\na,1\nb,2\n\n", "without values: line 4"),
    ("lines of separators", "g,x\n,\na,1\n , \nb,2\n,,,\n", "lines 2, 4 and 6"),
    ("names again", "g,x\na,1\ng , x\nb,2\n", "names of columns stand there again: line 3"),
    ("separators at the end", "g,x\na,1,\nb,2,,\n", ""),
    ("blanks around names", "g , x\na,1\nb,2\n", ""),
    ("quotes after a blank", 'g, x\n"a","1"\n"b", "2"\n', ""),
]


@pytest.mark.parametrize("what,text,note", PLAIN, ids=[row[0] for row in PLAIN])
def test_the_same_table_in_many_forms(what, text, note):
    names, rows, notes, _ = said(text)
    assert names == TWO and rows == ROWS, (names, rows)
    assert note in notes and bool(note) == bool(notes), notes


ODD = [
    # what, the text, names, rows, a part of the notes
    ("a header alone", "g;x\n", TWO, [], "';'"),
    ("a name alone", "x", ["x"], [], ""),
    ("one column", "x\n1\n2\n", ["x"], [("1",), ("2",)], ""),
    ("one column of decimal commas", "x\n1,5\n2,5\n", ["x"], [("1,5",), ("2,5",)], "decimal mark"),
    ("one column of words", "a town\nNew York\nUlm\n", ["a town"], [("New York",), ("Ulm",)], ""),
    ("decimal commas", "g;x\na;1,5\nb;-2\n", TWO, [("a", "1,5"), ("b", "-2")], "',' as decimal"),
    ("lines in quotes", '"g","x\ny"\n"a\n\nb",1\n', ["g", "x\ny"], [("a\n\nb", "1")], ""),
    ("quotes in quotes", 'g,x\n"a ""b""",1\n', TWO, [('a "b"', "1")], ""),
    ("blanks and NA", "g x\na NA\nb 2\n", TWO, [("a", "NA"), ("b", "2")], "spaces between"),
    ("inches", 'g,x\n5" pipe,1\n', TWO, [('5" pipe', "1")], ""),
    ("a # that is a name", "g,x\n#1,1\n", TWO, [("#1", "1")], ""),
    ("short rows", "g,x\na\nb,2\n", TWO, [("a", ""), ("b", "2")], "rest is missing: line 2"),
    ("row names of R", '"g" "x"\n"1" "a" 1\n', ["", *TWO], [("1", "a", "1")], "as R writes"),
    ("semicolons within", "g,x;y\na,1;2\nb,3;4\n", ["g", "x;y"], [("a", "1;2"), ("b", "3;4")], ""),
    ("no names", "0.5,1\n0.7,2\n", ["0.5", "1"], [("0.7", "2")], "lack a line of names"),
    ("years as names", "g,2001\na,2\n", ["g", "2001"], [("a", "2")], ""),
]  # fmt: skip


@pytest.mark.parametrize("what,text,names,rows,note", ODD, ids=[row[0] for row in ODD])
def test_odd_tables(what, text, names, rows, note):
    found, is_there, notes, _ = said(text)
    assert found == names and is_there == rows
    assert note in notes and bool(note) == bool(notes), notes


@pytest.mark.parametrize(
    "text,mark",
    [
        ("g;x\na;1,5\n", ","),
        ("g;x\na;1.000,5\n", ","),
        ("g;x\na;1,500\n", ","),  # where ';' separates, ',' is no thousand
        ("g\tx\na\t1,500\n", None),  # elsewhere it may be
        ('g,x\na,"1,5"\n', ","),
        ("g,x\na,1.5\n", "."),
        ("g;x\na;1.500\n", None),  # a thousand, or not
        ("g;x;y\na;1.500;1,5\n", ","),
        ("g;x;y\na;1,5;1.5\n", None),
        ("g,x\na,1\n", None),
    ],
)
def test_the_decimal_mark(text, mark):
    assert said(text)[3] == mark


@pytest.mark.parametrize(
    "text,words",
    [
        ("", ["t.csv", "empty"]),
        ("\n \n", ["t.csv", "empty"]),
        ("g,x\na,1\nb,2,3\n", ["t.csv", "line 3 has 3 fields", "has 2", "','", "quotes"]),
        ('g,x\n"a\nb",1\nb,2,3\n', ["line 4 has 3"]),
        ('g,x\na,1\n"b,2\nc,3\n', ["line 3 opens a quote that nothing closes"]),
        ("Our cows\n\ng,x\na,1\nb,2\n", ["line 1 has 1 field", "below it have 2", "names"]),
        ("g,x\na," + 140_000 * "1" + "\n", ["line 1 on", "131,072 characters"]),
        (140_000 * "1", ["line 1 on", "131,072 characters"]),
    ],
)
def test_what_cannot_be_read(text, words):
    with pytest.raises(InputError) as error:
        said(text)
    assert all(word in str(error.value) for word in words), str(error.value)


LARGE = [*PLAIN, *ODD]


@pytest.mark.parametrize("what,text", [row[:2] for row in LARGE], ids=[row[0] for row in LARGE])
def test_long_texts_are_read_alike(what, text, monkeypatch):
    """polars reads them where they are plain."""
    slow = said(text)
    monkeypatch.setattr(delimited, "LARGE", 0)
    assert said(text) == slow


def test_long_plain_texts_are_read_by_polars(monkeypatch):
    monkeypatch.setattr(delimited, "LARGE", 0)
    monkeypatch.setattr(delimited._Reading, "rows", None)
    quoted = 'g,x\n"a,""b""\nc",1\nd,\n'
    assert said(quoted)[1] == [('a,"b"\nc', "1"), ("d", "")]
    assert said("g;x\n" + "a;1\n" * 3 + "\n")[1:3] == (
        [("a", "1")] * 3,
        "read with ';' between columns. left out without values: line 5.",
    )


def test_many_columns():
    """Whose names are longer than what the separator is usually found by."""
    names = [f"a long name of a column, {i}" for i in range(5000)]
    text = ";".join(names) + "\n" + ";".join(map(str, range(5000))) + "\n"
    found = fields(text, "t.csv")
    assert found.names == names and found.frame.shape == (1, 5000)
    assert found.frame.dtypes == [pl.String] * 5000
