"""Reading files: every format gives the same rows, and what cannot be read is named."""

import csv
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from utils.arguments import UserError
from utils.data.files import read_rows
from utils.data.sources import check_columns


def test_every_format_gives_the_same_rows(tmp_path):
    rows = [{"q": 'a "quoted", text\nin two lines', "n": "None"}, {"q": "NA", "n": "007"}, {"q": "µg ± 10²", "n": ""}]
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, ["q", "n"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "b.json").write_text(json.dumps({"version": 1, "data": rows}))
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for path in list(tmp_path.iterdir()):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    assert len(list(tmp_path.iterdir())) == 12
    for path in tmp_path.iterdir():
        assert [row for _, row in read_rows(path)] == rows, path.name
    assert [number for number, _ in read_rows(tmp_path / "a.csv")] == [2, 4, 5]
    assert [number for number, _ in read_rows(tmp_path / "a.jsonl")] == [1, 2, 3]
    assert [number for number, _ in read_rows(tmp_path / "a.parquet")] == [0, 1, 2]
    assert [row for _, row in read_rows(tmp_path / "a.parquet", ["n", "x"])] == [{"n": row["n"]} for row in rows]


def test_a_field_longer_than_the_csv_limit_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("q,a\n" + "x" * 200_000 + ",y\n")
    assert len(next(read_rows(path))[1]["q"]) == 200_000


def parquet(columns: list[pa.Array]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns, names=["q"] * len(columns)), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.csv", None, ["missing.csv", "does not exist"]),
        ("folder.csv", "folder", ["folder.csv", "is a folder"]),
        ("a.xlsx", b"x", ["a.xlsx", "`.xlsx`", ".parquet"]),
        ("notes", b"x", ["notes", "no ending", ".parquet"]),
        ("a.csv", b"PK\x03\x04\x14\x00", ["a.csv", "Excel workbook"]),
        ("a.csv", gzip.compress(b"q,a\n1,2\n", mtime=0), ["a.csv", ".gz"]),
        ("a.jsonl", b"PAR1...", ["a.jsonl", ".parquet"]),
        ("a.csv", b"q\nsome, words\n", ["a.csv", "row 2 has 2 fields", "quotation marks"]),
        ("a.csv", b"q,a\n1,some,words\n", ["a.csv", "row 2 has 3 fields", "name the missing column"]),
        ("a.csv", b"q,a\nsome\nwords,2\n", ["a.csv", "row 2 has 1 fields", "line break"]),
        ("a.csv", b"", ["a.csv", "no rows"]),
        ("a.csv", b"q,a\n", ["a.csv", "no rows"]),
        ("a.jsonl", b"\n\n", ["a.jsonl", "no rows"]),
        ("a.json", b"[]", ["a.json", "no rows"]),
        ("a.csv", b"q,a\n1,2\n\x81g,3\n", ["a.csv", "not UTF-8", "byte 8", "line 3"]),
        ("a.jsonl.gz", gzip.compress(b'{"q": 1}\n{"q": "\xe9"}', mtime=0), ["a.jsonl.gz", "not UTF-8", "byte 16"]),
        ("a.csv", b'q,a\n"1\n1",2\n\n1,2,3\n', ["a.csv", "row 5", "3 fields", "2"]),
        ("a.csv", b'q,a\n1,2\n3,"4\n5,6\n', ["a.csv", "row 3", "malformed"]),
        ("a.csv", b"q,a,q\n1,2,3\n", ["a.csv", "`q` twice"]),
        ("a.jsonl", b'{"q": 1}\n\n{"q": \n', ["a.jsonl", "row 3", "not JSON"]),
        ("a.jsonl", b'{"q": 1}\n{"q": 1, "q": 2}\n', ["a.jsonl", "row 2", "`q`", "twice"]),
        ("a.jsonl", b'{"q": 1}\n[1]\n', ["a.jsonl", "row 2", "list"]),
        ("a.json", b'{"q": 1}\n{"q": 2}', ["a.json", "not JSON", ".jsonl"]),
        ("a.json", b'{"rows": []}', ["a.json", "data"]),
        ("a.json", b'[{"q": 1}, 2]', ["a.json", "row 1", "int"]),
        ("a.json", b'["\xff"]', ["a.json", "not UTF-8", "byte 2"]),
        ("a.csv.gz", b"not gzip", ["a.csv.gz", "damaged"]),
        ("a.csv.gz", gzip.compress(b"q,a\n" + bytes(range(97, 122)) * 99, mtime=0)[:-12], ["a.csv.gz", "damaged"]),
        ("a.parquet", b"PAR1 not parquet PAR1", ["a.parquet", "damaged"]),
        ("a.parquet", parquet([pa.array(["x"])] * 2), ["a.parquet", "`q` twice"]),
        (
            "a.parquet",
            parquet([pa.array([[("A", 1), ("A", 2)]], pa.map_("string", "int8"))]),
            ["a.parquet", "key twice"],
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_row(tmp_path, name, content, says):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        list(read_rows(tmp_path / name))
    assert all(part in str(error.value) for part in says), str(error.value)


def test_reading_a_file_imports_no_training_library(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"q": 1}')
    script = (
        "import sys; from utils.arguments import DataArguments; before = set(sys.modules)\n"
        "from utils.data.sources import *\n"
        "list(read_split(DataArguments(train_file=sys.argv[1]), 'train', ['q'], None, '', {}, Counter()))\n"
        "print(*({'datasets', 'sklearn', 'torch'} & (set(sys.modules) - before)))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.jsonl")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize(
    "known",
    [
        ['{"note": "a murmur of Zebulon"', ' "ward": "x"}'],
        ["Zebulon Quill has had fever and a cough since the Monday after his journey", "cardiology"],
        ["Zebulon Quill", "67", "fever"],
    ],
)
def test_a_first_row_in_place_of_a_header_is_not_printed(known):
    with pytest.raises(UserError, match="`ward`.*f.csv.*header") as caught:
        check_columns(["ward"], known, "f.csv")
    assert "Zebulon" not in str(caught.value) and "fever" not in str(caught.value)
    for names in (["notes", "ICD-10 code"], ["Date of onset (dd/mm/yyyy)", "wards"]):
        with pytest.raises(UserError) as caught:
            check_columns(["note"], names, "f.csv")
        assert all(name in str(caught.value) for name in names)
