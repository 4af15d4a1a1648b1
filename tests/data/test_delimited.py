"""Tables as programs write them: what comes back is what went in, or one line says why not."""

import csv
import datetime
import gzip
import io
import itertools
import json
import random
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.arguments import UserError
from utils.data.files import read_rows

# Half of the characters are those that make reading hard
TEXT = st.text(
    st.one_of(
        st.sampled_from(",;\t|\"'\n\r\\= \u00a0\u2028\x85\x1c\x0b\ufeff0.5é"),
        # the csv module of Python 3.10 takes no NUL
        st.characters(exclude_categories=["Cs"], exclude_characters="\0" if sys.version_info < (3, 11) else ""),
    ),
    max_size=12,
) | st.sampled_from(["", "NA", "None", "null", "nan", "007", "1.0", "250.00", "0,5", "sep=;", '"', '""', " "])
NAMES = st.lists(st.text("abcdefgh", min_size=2, max_size=5), min_size=1, max_size=4, unique=True)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@st.composite
def tables(draw: st.DrawFn, values: st.SearchStrategy = TEXT) -> list[dict]:
    names = draw(NAMES)
    return draw(st.lists(st.fixed_dictionaries(dict.fromkeys(names, values)), min_size=1, max_size=6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix.lower() == ".gz" else data)
    return path


def delimited(rows: list[dict], separator: str, end: str, quoting: int) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def read(path: Path, columns: list[str] | None = None) -> tuple[list[dict], Counter]:
    counts = Counter()
    return [row for _, row in read_rows(path, columns, counts)], +counts


# ----- What comes back is what went in


@settings(max_examples=150, deadline=None)
@given(
    rows=tables(),
    name=st.sampled_from(["a.csv", "a.csv.gz", "a.tsv", "a.TSV.GZ"]),
    separator=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(ENCODINGS),
    everything=st.booleans(),
)
def test_a_table_comes_back_with_any_separator_line_end_and_encoding(
    folder, rows, name, separator, end, encoding, everything
):
    # without them the csv module leaves line breaks open where rows end otherwise, and nothing tells what separates
    # the fields where there is one
    everything |= end != "\r\n" or len(rows[0]) == 1
    quoting = csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL
    path = write(folder / name, delimited(rows, separator, end, quoting).encode(encoding))
    try:
        assert read(path)[0] == rows
    except UserError as error:  # tabs and line breaks inside quotation marks may be rows, too
        several = any("\n" in value or "\r" in value for row in rows for value in row.values())
        tabs = separator == "\t" or ("tsv" in name.lower() and len(rows[0]) == 1)
        assert tabs and several, str(error)


LINE = TEXT.map(lambda text: "".join(c for c in text if c not in "\t\n\r\x00"))


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(LINE, LINE), min_size=1, max_size=6), end=st.sampled_from("\n\r"))
def test_a_table_with_tabs_and_quotation_marks_as_text_loses_no_row(folder, rows, end):
    lines = ["\t".join(row) + end for row in [("aa", "bb"), *rows]]
    try:
        found, _ = read(write(folder / "a.tsv", "".join(lines).encode()))
    except UserError:
        assert any(value.startswith('"') for row in rows for value in row)
        return
    without = [[value.replace('"', "") for value in row] for row in rows]  # those at either end may enclose a field
    assert [[value.replace('"', "") for value in row.values()] for row in found] == without


NESTED = st.recursive(
    TEXT | st.none(), lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXT, each, max_size=3), max_leaves=6
)
NUMBERS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(
    rows=tables(TEXT | NUMBERS | NESTED),
    encoding=st.sampled_from(ENCODINGS),
    ascii_only=st.booleans(),
    zipped=st.booleans(),
)
def test_json_comes_back_in_any_encoding(folder, rows, encoding, ascii_only, zipped):
    lines = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    ending = ".gz" if zipped else ""
    assert read(write(folder / f"a.jsonl{ending}", lines.encode(encoding)))[0] == rows
    whole = json.dumps(rows, ensure_ascii=ascii_only)
    assert read(write(folder / f"a.json{ending}", whole.encode(encoding)))[0] == rows


# A type of parquet and its values
COLUMNS = [
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.bool_(), st.booleans()),
    (pa.decimal128(9, 2), st.decimals(-1000, 1000, places=2)),
    (pa.timestamp("us"), st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1))),
    (pa.date32(), st.dates()),
    (pa.list_(pa.string()), st.lists(st.none() | TEXT, max_size=3)),
    (pa.struct({"A": pa.string(), "B": pa.string()}), st.fixed_dictionaries({"A": TEXT, "B": st.none() | TEXT})),
    (pa.map_(pa.string(), pa.string()), st.dictionaries(TEXT, TEXT, max_size=3)),
    (pa.list_(pa.struct({"role": pa.string()})), st.lists(st.fixed_dictionaries({"role": TEXT}), max_size=3)),
    (pa.dictionary(pa.int32(), pa.string()), TEXT),
    (pa.large_string(), TEXT),
]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(rows=tables(TEXT | st.none()), data=st.data(), zipped=st.booleans())
def test_parquet_comes_back_with_values_of_any_type(folder, rows, data, zipped):
    kind, values = data.draw(st.sampled_from(COLUMNS))
    rows = [row | {"value": data.draw(st.none() | values)} for row in rows]
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in rows[0] if name != "value"}
    table = pa.table(columns | {"value": pa.array([row["value"] for row in rows], kind)})
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    path = write(folder / f"a.parquet{'.gz' if zipped else ''}", stream.getvalue())
    assert read(path)[0] == rows
    assert read(path, ["value", "no"])[0] == [{"value": row["value"]} for row in rows]


@settings(max_examples=60, deadline=None)
@given(rows=tables(), separator=st.sampled_from(",;|"), spaces=st.sampled_from([" ", "  "]))
def test_spaces_before_quotation_marks_are_no_part_of_a_field(folder, rows, separator, spaces):
    names = list(rows[0])
    if len(names) == 1:
        return
    fields = [names, *([row[name] for name in names] for row in rows)]
    quoted = ([f'"{value}"'.replace('"', '""')[1:-1] for value in values] for values in fields)
    lines = [(separator + spaces).join(values) for values in quoted]
    try:
        assert read(write(folder / "a.csv", "\n".join(lines).encode()))[0] == rows
    except UserError as error:  # another separator makes a table of it, too
        assert "between the fields" in str(error)


def test_a_space_that_a_program_writes_is_kept_whatever_the_quotation_marks(tmp_path):
    rows = [{"note": 'said, "no", left', "ward": " x"}, {"note": ' "y"', "ward": '"'}, {"note": ",", "ward": ' , "'}]
    assert read(write(tmp_path / "a.csv", delimited(rows, ",", "\n", csv.QUOTE_MINIMAL).encode())) == (rows, {})


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
def test_files_that_were_put_together_have_one_header(tmp_path, caplog, quoting):
    rows = [{"note": f"cough, for {i} days", "ward": "A"} for i in range(5)]
    data = delimited(rows, ",", "\n", quoting).encode("utf-8-sig")
    assert read(write(tmp_path / "a.csv", data + data)) == (rows + rows, {"repeated_headers": 1})
    assert "1 rows repeat" in caplog.text
    assert read(write(tmp_path / "a.csv", b"\xef\xbb\xbf" + data)) == (rows, {})
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode("utf-8-sig")
    assert read(write(tmp_path / "a.jsonl", lines + lines)) == (rows + rows, {})


def test_a_title_above_the_names_of_the_columns_is_pointed_at(tmp_path):
    path = write(tmp_path / "a.csv", b"Report of 2020,\n\nnote,ward\ncough,A\n")
    with pytest.raises(UserError, match="row 3"):
        read(path, ["note", "ward", "id"])
    assert len(read(path, ["Report of 2020"])[0]) == 2  # a column of that name


# ----- Files that are not what their name says


def test_what_is_guessed_is_counted_and_what_is_certain_is_not(tmp_path):
    rows = [{"note": f"pain, grade {i}", "dose": f"{i},5"} for i in range(20)]
    table = {separator: delimited(rows, separator, "\r\n", csv.QUOTE_MINIMAL) for separator in ",;\t|"}
    cases = [
        ("a.csv", table[","].encode(), {}),
        ("a.tsv", table["\t"].encode(), {}),
        ("a.csv", table[";"].encode("utf-8-sig"), {"guessed_separators": 1}),
        ("a.csv", table["\t"].encode("utf-16"), {"guessed_separators": 1}),
        ("a.tsv", table[","].encode(), {"guessed_separators": 1}),
        ("a.csv", ("sep=;\r\n" + table[";"]).encode(), {}),
        ("a.csv", ("sep=^\r\n" + table[";"].replace(";", "^")).encode(), {}),
        ("a.csv", table["|"].encode("utf-16-be"), {"guessed_separators": 1, "guessed_encodings": 1}),
    ]
    for name, data, counts in cases:
        assert read(write(tmp_path / name, data)) == (rows, counts), data[:30]
    number = next(read_rows(write(tmp_path / "a.csv", b"sep=;\nnote;dose\nx;y\n")))[0]
    assert number == 3


@pytest.mark.parametrize(
    ("text", "encodings"),
    [
        ("Der Patient hat Fieber über 39 °C, größere Blähungen und „Sodbrennen“.", "mac_roman cp850 cp437"),
        ("Patient âgé de 60 ans, opéré du cœur – fièvre élevée, l’hôpital.", "mac_roman cp850"),
        ("El niño tiene fiebre; señala la garganta, está débil y no comió.", "mac_roman cp850"),
        ("The patient’s dose is 5 µg ± 2, no fever at 37 °C.", "mac_roman cp850"),
        ("Pacjent ma gorączkę i ból głowy, żółtaczka.", "cp1250 iso8859-2"),
        ("Pacient má horečku a bolest hlavy, žloutenka.", "cp1250 mac_latin2"),
        ("Hastanın ateşi var, başı ağrıyor ve öksürüyor.", "cp1254"),
        ("У пациента температура и головная боль.", "cp1251 koi8-r cp866"),
        ("Ο ασθενής έχει πυρετό και βήχα.", "cp1253"),
        ("病人发烧头痛，CT检查正常。", "gbk big5hkscs"),
        ("患者は熱があります。", "shift_jis euc_jp"),
        ("환자는 열이 있습니다.", "cp949"),
        ("ผู้ป่วยมีไข้", "cp874"),
    ],
)
def test_another_encoding_is_read_right_or_refused(tmp_path, text, encodings):
    for encoding in encodings.split():
        data = f"note,ward\n{text.replace(',', ' ')},a\n".encode(encoding, "ignore")
        with pytest.raises(UserError, match="not UTF-8"):
            read(write(tmp_path / "a.csv", data))


@pytest.mark.parametrize(
    "text",
    ["Fieber über 39 °C", "l’hôpital – cœur", "El niño está débil", "the patient’s 5 µg dose", "37 °C", "coração são"],
)
def test_windows_1252_is_read_where_its_letters_leave_no_doubt(tmp_path, text):
    rows = [{"note": text, "ward": "a"}, {"note": "plain", "ward": "b"}]
    data = delimited(rows, ",", "\r\n", csv.QUOTE_MINIMAL).encode("cp1252")
    assert read(write(tmp_path / "a.csv", data)) == (rows, {"guessed_encodings": 1})
    mixed = data + delimited(rows, ",", "\r\n", csv.QUOTE_MINIMAL).encode()
    with pytest.raises(UserError, match="not UTF-8"):
        read(write(tmp_path / "a.csv", mixed))


def test_a_file_that_goes_on_in_another_encoding_is_refused(tmp_path):
    for data in ("a,b\nx,y\n".encode("utf-16") + b"z", "a,b\n".encode("utf-16-le") + b"\x00\xd8\x00\x00"):
        with pytest.raises(UserError, match="a.csv"):
            read(write(tmp_path / "a.csv", data))


# ----- Rows that a quotation mark swallows


STRAY = 'note\tward\nfine\ta\n"Open at once\tb\nthen\tc\nshut"\td\nfine\te\n'


def test_tabs_with_a_stray_quotation_mark_are_read_as_lines_or_refused(tmp_path):
    with pytest.raises(UserError, match="row 3"):
        read(write(tmp_path / "a.tsv", STRAY.encode()))
    for text in (STRAY.replace('shut"', "shut"), STRAY.replace('"Open', '"Open" wide')):
        rows, counts = read(write(tmp_path / "a.tsv", text.encode()))
        assert [row["ward"] for row in rows] == list("abcde") and counts == {"literal_quotes": 1}
        assert rows[1]["note"].startswith('"Open')


def test_tabs_with_fields_in_quotation_marks_are_read_as_a_spreadsheet_writes_them(tmp_path):
    text = 'note\tward\n"in two\nlines"\ta\n"5"" of ""it"""\tb\nplain 5"\tc\n'
    rows, counts = read(write(tmp_path / "a.tsv", text.encode()))
    assert [row["note"] for row in rows] == ["in two\nlines", '5" of "it"', 'plain 5"']
    assert counts == {"multiline_rows": 1}


def test_commas_with_lines_that_look_like_rows_inside_a_field_are_counted(tmp_path, caplog):
    rows, counts = read(write(tmp_path / "a.csv", STRAY.replace("\t", ",").encode()))
    assert len(rows) == 3 and counts == {"multiline_rows": 1, "doubtful_rows": 1}
    assert "line 3" in caplog.text and "Open at once" not in caplog.text


def test_a_table_longer_than_the_sample_keeps_its_separator_and_names_the_broken_row(tmp_path):
    rows = [{"note": f"row {i}\nof; two lines", "ward": "a,b"} for i in range(900)]
    text = delimited(rows, ";", "\n", csv.QUOTE_MINIMAL)
    assert read(write(tmp_path / "a.csv", text.encode()))[0] == rows
    with pytest.raises(UserError, match="row 1802 has 3 fields, the header has 2"):
        read(write(tmp_path / "a.csv", (text + "one;too;many\n").encode()))


# ----- Names of columns


def test_columns_without_a_name_or_named_twice_are_left_out_unless_they_are_used(tmp_path):
    path = write(tmp_path / "a.csv", b",note,x,ward,,x\n1,some words,2,a,,3\n")
    assert read(path, ["note", "ward", "id"])[0] == [{"note": "some words", "ward": "a"}]
    for columns in (["note", "x"], None):
        with pytest.raises(UserError, match="`x` twice"):
            read(path, columns)


def test_empty_fields_at_the_end_of_rows_and_blank_lines_are_no_fields(tmp_path):
    path = write(tmp_path / "a.csv", b"\n  \nnote,ward\nsome,a,,\n\n   \nwords,b\n")
    assert list(read_rows(path)) == [(4, {"note": "some", "ward": "a"}), (7, {"note": "words", "ward": "b"})]
    with pytest.raises(UserError, match="row 2 has 3 fields, the header has 2"):
        read(write(tmp_path / "a.csv", b"note,ward\nsome,a,b\n"))


def test_random_bytes_are_a_table_or_one_line_of_complaint(tmp_path):
    generator = random.Random(0)
    for number, name in itertools.product(range(150), ("a.csv", "a.tsv", "a.jsonl", "a.json")):
        alphabet = b'ab,;\t|"\n\r\x00\x80\xc3\xa9\xe9\xff{}:1' if number % 2 else bytes(range(256))
        data = bytes(generator.choices(alphabet, k=generator.randrange(1, 40)))
        try:
            read(write(tmp_path / name, data))
        except UserError as error:
            assert name in str(error)
