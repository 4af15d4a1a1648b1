"""The hand-over to datatrove: its clusters keep near-duplicates in one split. Needs requirements/datatrove.txt
and requirements/privacy.txt."""

import json
import os
import random
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("datatrove")
SCRIPT = ROOT / "recipes" / "datatrove" / "near_duplicates.py"


def write_rows(folder, n_files=3):
    """40 texts in four versions each, which differ in a word, spread over the files; and rows like no other."""
    rng, rows = random.Random(0), []
    for original in range(40):
        words = [f"w{rng.randrange(5000)}" for _ in range(60)]
        rows += [{"text": " ".join([*words, f"x{version}"]), "original": original} for version in range(4)]
    rng.shuffle(rows)
    rows += [
        {"text": "", "original": -1},
        {"text": "5 mg a day", "original": -2},
        {"text": "9 mg a day", "original": -3},
    ]
    folder.mkdir()
    for number in range(n_files):
        lines = "".join(json.dumps(row) + "\n" for row in rows[number::n_files])
        (folder / f"{number}.jsonl").write_text(lines)
    return folder, rows


def run(*flags, **env):
    argv = [sys.executable, SCRIPT, *map(str, flags)]
    return subprocess.run(argv, capture_output=True, text=True, env=os.environ | env, check=False)


def test_clusters_are_those_of_near_duplicates_and_utils_data_reads_them(tmp_path):
    source, rows = write_rows(tmp_path / "rows")
    flags = ("--input_folder", source, "--text_column", "text", "--output_folder", tmp_path / "out")
    done = run(*flags)
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted((tmp_path / "out" / "rows").glob("*.jsonl"))
    found = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    by_original = {row["original"]: set() for row in rows}
    for row in found:
        by_original[row["original"]].add(row.pop("near_duplicates"))
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, rows))
    clusters = [by_original[original] for original in range(40)]
    assert all(len(own) == 1 and None not in own for own in clusters) and len(set.union(*clusters)) == 40
    assert by_original[-1] == by_original[-2] == by_original[-3] == {None}

    (tmp_path / "all.jsonl").write_text("".join(path.read_text() for path in files))
    argv = ["-m", "utils.data", "--train_file", tmp_path / "all.jsonl", "--question_column", "text",
            "--answer_column", "original", "--output_dir", tmp_path / "clean", "--group_column", "near_duplicates",
            "--near_duplicate_threshold", 1.0, "--min_input_words", 1, "--min_target_words", 0]  # fmt: skip
    subprocess.run([sys.executable, *map(str, argv)], cwd=ROOT, check=True, capture_output=True)
    places = {}
    for path in (tmp_path / "clean").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            places.setdefault(json.loads(line)["original"], set()).add(path.stem)
    assert len(places) == 42 and all(len(own) == 1 for own in places.values())  # the row without text is dropped


@pytest.mark.parametrize(("flags", "said"), [(["--text_column", "txt"], "`text_column` txt"), ([], "of other rows")])
def test_what_it_cannot_do_is_one_line(flags, said, tmp_path):
    source, _ = write_rows(tmp_path / "rows", 1)
    (tmp_path / "out" / "work").mkdir(parents=True)
    (tmp_path / "out" / "work" / "input.json").write_text("{}")
    done = run("--input_folder", source, "--output_folder", tmp_path / "out", *(flags or ["--text_column", "text"]))
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1]


def test_on_slurm_each_stage_waits_for_the_one_before(tmp_path):
    source, _ = write_rows(tmp_path / "rows")
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\necho $(wc -l < {tmp_path}/calls)\n')
    sbatch.chmod(0o755)
    flags = ("--input_folder", source, "--text_column", "text", "--output_folder", tmp_path / "out")
    done = run(*flags, "--partition", "cpu", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr[-2000:]
    calls = (tmp_path / "calls").read_text().splitlines()
    calls = [call for call in calls if "RUN_OFFSET" in call]  # and a job that adds up the counts of each stage
    assert len(calls) == 4 and "dependency" not in calls[0]
    assert all(f"dependency=afterok:{number}" in call for number, call in zip((1, 3, 5), calls[1:], strict=True))
