"""Lines in the order of their rows, whatever ends a run: nothing twice, nothing lost but the batch in work."""

import datetime
import random
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run, flags, read_jsonl, run_here, word_tokenizer, write_rows

import predict
from utils.arguments import UserError
from utils.inputs import WINDOW, own_rows
from utils.json_files import write_json
from utils.ordered_lines import OrderedLines, begin, check_output, count_lines, finish, partial_folder, wait_for_begin

TASK = {
    "task": "classification",
    "columns": {"text": "note"},
    "text_template": "{text}",
    "raw_columns": {"input": "note"},
}


def lines_of(tmp_path: Path, goes_on: bool = True) -> OrderedLines:
    return OrderedLines(tmp_path / "out", tmp_path / "journal", goes_on, lambda: None)


@pytest.mark.parametrize("seed", range(30))
def test_lines_come_in_order_through_any_number_of_kills(tmp_path, seed):
    rng = random.Random(seed)
    wanted = [f"row {number} \u2028\u00e9\n" for number in range(rng.randrange(1, 60))]
    size = rng.randrange(1, 6)
    starts, kills = range(0, len(wanted), 4 * size), 0
    while True:
        lines, computed = lines_of(tmp_path, goes_on=kills > 0), 0
        for start in starts:
            window = rng.sample(range(start, min(start + 4 * size, len(wanted))), min(4 * size, len(wanted) - start))
            window = sorted(window, key=lambda number: -len(wanted[number]) + number % 3)
            for place in range(0, len(window), size):
                batch = {number: wanted[number] for number in window[place : place + size] if number not in lines}
                if batch:
                    lines.add(batch)
                    computed += 1
                if batch and rng.random() < 0.2 and kills < 8:
                    break
            else:
                continue
            break
        else:
            lines.close()
            break
        kills += 1
        lines.close()
        for name in ("out", "journal"):  # what a process has left of a line that it was writing
            with (tmp_path / name).open("a", encoding="utf-8") as stream:
                stream.write(rng.choice(["", "3", "3\tro", "17\trow 17 "]))
    assert (tmp_path / "out").read_text(encoding="utf-8") == "".join(wanted)
    assert (tmp_path / "journal").read_text() == ""


def test_lines_that_wait_are_kept_and_others_are_written_at_once(tmp_path):
    lines = lines_of(tmp_path)
    lines.add({2: "c\n", 1: "b\n"})  # as if the process were killed here
    assert (tmp_path / "out").read_text() == "" and 2 in lines and 0 not in lines
    again = lines_of(tmp_path)
    assert 1 in again and 2 in again and again.written == 0
    again.add({0: "a\n"})
    assert (tmp_path / "out").read_text() == "a\nb\nc\n" and count_lines(tmp_path / "journal") == 0


def test_what_a_kill_left_in_the_journal_alone_is_written_though_nothing_is_left_to_compute(tmp_path):
    (tmp_path / "out").write_text("a\nb")  # killed while it wrote the second line
    (tmp_path / "journal").write_text("1\tb\n2\tc\n3\td")
    lines = lines_of(tmp_path)
    assert 2 in lines and 3 not in lines
    lines.close()
    assert (tmp_path / "out").read_text() == "a\nb\nc\n"


# ----- The output of predict.py


class Shout:
    """A model in capitals."""

    def __init__(self) -> None:
        self.task, self.batches, self.most = TASK, 0, 10**9
        self.tokenizer = word_tokenizer([])

    def predict(self, rows: list[dict[str, str]], batch_size: int) -> list[dict[str, Any]]:
        assert len(rows) <= batch_size
        if self.batches >= self.most:
            raise KeyboardInterrupt
        self.batches += 1
        return [{"prediction": row["note"].upper()} for row in rows]


@pytest.fixture
def model(tmp_path, monkeypatch) -> Shout:
    """A finished run, whose model is `Shout`."""
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "task.json", TASK)
    shout = Shout()
    monkeypatch.setattr(predict.Predictor, "from_pretrained", lambda *_: shout)
    return shout


def ask(tmp_path: Path, **values: Any) -> Run:
    argv = flags(model=tmp_path / "run", output_file=tmp_path / "out.jsonl", batch_size=3, **values)
    return run_here(lambda args, given: predict.main(args), (predict.PredictArguments,), argv)


def notes(tmp_path: Path, number: int = 50) -> tuple[Path, list[dict[str, Any]]]:
    rng = random.Random(1)
    rows = [{"id": i, "note": " ".join(["word"] * rng.randrange(1, 30)) + str(i)} for i in range(number)]
    path = write_rows(tmp_path / "in.jsonl", rows)
    return path, [{"id": row["id"], "prediction": row["note"].upper()} for row in rows]


def test_a_run_that_is_stopped_goes_on_and_computes_each_batch_once(tmp_path, model):
    path, wanted = notes(tmp_path)
    for most in (3, 4, 6, 99):
        model.most = model.batches + most
        try:
            done = ask(tmp_path, input_file=path, resume=True)
        except KeyboardInterrupt:
            found = read_jsonl(tmp_path / "out.jsonl")
            assert found == wanted[: len(found)] and len(found) >= 3 * (model.batches // WINDOW * WINDOW)
            assert partial_folder(tmp_path / "out.jsonl").is_dir()
    assert done.code == 0 and read_jsonl(tmp_path / "out.jsonl") == wanted
    assert model.batches == -(-50 // 3) and not partial_folder(tmp_path / "out.jsonl").exists()
    done = ask(tmp_path, input_file=path, resume=True)
    assert done.code == 0 and "nothing to do" in done.stderr and model.batches == -(-50 // 3)


def test_an_output_that_exists_is_kept_until_the_first_batch_is_done(tmp_path, model):
    path, wanted = notes(tmp_path)
    output = tmp_path / "out.jsonl"
    output.write_text("mine\n")
    for values, words in (
        ({}, ["`output_file`", "exists", "`--overwrite`"]),
        ({"resume": True}, ["`output_file`", "no stopped run"]),
        ({"resume": True, "overwrite": True}, ["`resume` and `overwrite`"]),
    ):
        done = ask(tmp_path, input_file=path, **values)
        assert done.code == 2 and all(word in done.stderr for word in words), done.stderr
    model.most = 0
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, input_file=path, overwrite=True)
    assert output.read_text() == "mine\n" and not partial_folder(output).exists()
    model.most = 1
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, input_file=path, overwrite=True)
    done = ask(tmp_path, input_file=path)
    assert done.code == 2 and "`--resume`" in done.stderr and "`--overwrite`" in done.stderr
    model.most = 999
    assert ask(tmp_path, input_file=path, overwrite=True).code == 0 and read_jsonl(output) == wanted


def test_a_run_does_not_go_on_with_other_rows_or_settings(tmp_path, model):
    path, _ = notes(tmp_path)
    model.most = 1
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, input_file=path)
    done = ask(tmp_path, input_file=path, resume=True, top_k=2)
    assert done.code == 2 and "`top_k`" in done.stderr
    path.write_text(path.read_text() + '{"id": 1, "note": "one more"}\n')
    done = ask(tmp_path, input_file=path, resume=True)
    assert done.code == 2 and "`input_file`" in done.stderr


@pytest.mark.parametrize("number", [1, 5, 12, 13, 24, 50])
def test_several_processes_write_one_file_in_order(tmp_path, model, monkeypatch, number):
    path, wanted = notes(tmp_path, number)
    rank = threading.local()
    monkeypatch.setattr(predict, "take_rank", lambda: (rank.number, 3, "launch"))
    argv = {"model": str(tmp_path / "run"), "input_file": str(path), "output_file": str(tmp_path / "out.jsonl")}
    args = predict.PredictArguments(**argv, batch_size=3)

    def work(own: int) -> None:
        rank.number = own
        predict.main(args)

    threads = [threading.Thread(target=work, args=(own,)) for own in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert read_jsonl(tmp_path / "out.jsonl") == wanted and not partial_folder(tmp_path / "out.jsonl").exists()
    assert sum(own_rows(number, 3, own, 3) for own in range(3)) == number


def test_an_id_of_any_type_comes_back_or_is_refused_before_anything_is_computed(tmp_path, model):
    ids = [7, "7", 1.5, None, True, "2020-01-01 08:00:00", "2020-01-01", "1.50", "[1, 2]"]
    rows = [
        7,
        "7",
        1.5,
        None,
        True,
        datetime.datetime(2020, 1, 1, 8),
        datetime.date(2020, 1, 1),
        Decimal("1.50"),
        [1, 2],
    ]
    for value, wanted in zip(rows, ids, strict=True):
        pq.write_table(pa.table({"note": ["a cough"], "id": pa.array([value])}), tmp_path / "in.parquet")
        assert ask(tmp_path, input_file=tmp_path / "in.parquet", overwrite=True).code == 0
        assert read_jsonl(tmp_path / "out.jsonl") == [{"id": wanted, "prediction": "A COUGH"}]
    pq.write_table(pa.table({"note": ["a cough"], "id": pa.array([b"x"])}), tmp_path / "in.parquet")
    done, before = ask(tmp_path, input_file=tmp_path / "in.parquet", overwrite=True), model.batches
    assert done.code == 2 and "row 0: `id`" in done.stderr and model.batches == before


def kill_while_deleting(monkeypatch, deleted: int) -> None:
    """Stop a process that deletes a folder after this number of its files."""

    def rmtree(folder: Path, **_: Any) -> None:
        if folder.exists():
            for file in sorted(folder.iterdir(), reverse=True)[:deleted]:
                file.unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr("utils.ordered_lines.shutil.rmtree", rmtree)


@pytest.mark.parametrize("deleted", range(3))
def test_a_run_that_is_killed_as_it_ends_is_complete_and_leaves_nothing(tmp_path, model, monkeypatch, deleted):
    path, wanted = notes(tmp_path, 20)
    output = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_while_deleting(patch, deleted)
        ask(tmp_path, input_file=path)
    assert partial_folder(output).exists()
    done = ask(tmp_path, input_file=path, resume=True)
    assert done.code == 0 and "nothing to do" in done.stderr and not partial_folder(output).exists()
    assert read_jsonl(output) == wanted


def test_a_finished_output_is_not_taken_for_that_of_another_file_model_or_setting(tmp_path, model):
    path, wanted = notes(tmp_path, 20)
    assert ask(tmp_path, input_file=path).code == 0
    again = ask(tmp_path, input_file=path, resume=True)
    assert again.code == 0 and "nothing to do" in again.stderr
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(lines)))  # as many rows
    for values, key in (({}, "`input_file`"), ({"top_k": 1}, "`input_file`, `top_k`")):
        done = ask(tmp_path, input_file=path, resume=True, **values)
        assert done.code == 2 and f"was written with another {key}" in done.stderr.replace(
            "`top_k`, `input_file`", key
        )
    assert read_jsonl(tmp_path / "out.jsonl") == wanted
    assert ask(tmp_path, input_file=path, overwrite=True).code == 0
    assert ask(tmp_path, input_file=path, resume=True).code == 0
    (tmp_path / "out.jsonl.run.json").unlink()  # an output of someone else, with as many lines
    assert ask(tmp_path, input_file=path, resume=True).code == 2


@pytest.mark.parametrize("deleted", range(4))
def test_several_processes_that_are_killed_as_they_end_have_a_complete_output(tmp_path, monkeypatch, deleted):
    output = tmp_path / "out.jsonl"
    folder = partial_folder(output)
    begin(output, {"top_k": 3}, "launch", goes_on=False, keep_output=True)
    for rank, lines in enumerate(("0\n1\n4\n", "2\n3\n")):
        (folder / f"rank-{rank}.jsonl").write_text(lines)
    finish(output, 1, 2, window=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_while_deleting(patch, deleted)
        finish(output, 0, 2, window=2)
    assert output.read_text() == "0\n1\n2\n3\n4\n" and folder.exists()
    assert check_output(output, {"top_k": 3}, True, False, rows=5) == "complete"
    assert wait_for_begin(output, "another launch", resume=True) == "complete"


def test_an_output_that_cannot_be_a_file_is_refused_before_the_model_is_loaded(tmp_path):
    for output in (tmp_path, tmp_path / "none" / "out.jsonl"):
        with pytest.raises(UserError, match="`output_file`"):
            check_output(output, {}, False, False, 3)


def test_a_row_that_only_the_tokenizer_refuses_has_an_error_and_the_others_their_predictions(
    tmp_path, model, monkeypatch
):
    path, wanted = notes(tmp_path)

    def fail(rows, batch_size):
        if any(row["note"].endswith("17") for row in rows):
            raise UserError("the template leaves no room.")
        return [{"prediction": row["note"].upper()} for row in rows]

    monkeypatch.setattr(model, "predict", fail, raising=False)
    done = ask(tmp_path, input_file=path)
    assert done.code == 2 and "row 18: the template" in done.stderr, done.stderr
    wanted[17] = {"id": 17, "error": "the template leaves no room."}
    assert read_jsonl(tmp_path / "out.jsonl") == wanted
    assert ask(tmp_path, input_file=path, resume=True).code == 0


def test_the_output_cannot_be_the_input(tmp_path, model):
    path, _ = notes(tmp_path)
    argv = flags(model=tmp_path / "run", input_file=path, output_file=tmp_path / "run/../in.jsonl", overwrite=True)
    done = run_here(lambda args, given: predict.main(args), (predict.PredictArguments,), argv)
    assert done.code == 2 and "`output_file` is the `input_file`" in done.stderr and path.stat().st_size
