"""Every text of a row has a word of its own: it may turn up in `_private` alone, whatever is done with the run."""

import re
from collections.abc import Iterable

import pytest
from conftest import toy_dialogues, toy_exam, toy_notes, toy_rows, tree_rows, write_rows

pytestmark = pytest.mark.faults
WORD = re.compile("zqxjzq[a-z]{5}", re.IGNORECASE)  # long enough not to be in an image by chance
# A script with what it draws as text: pictures hide words from a search
PLOTTED = """
import pathlib, runpy, sys
from matplotlib.figure import Figure
from matplotlib.text import Text
save = Figure.savefig

def savefig(self, path, *args, **kwargs):
    words = [text.get_text() for text in self.findobj(Text)]
    pathlib.Path(f"{path}.words.txt").write_text("\\n".join(words))
    return save(self, path, *args, **kwargs)

Figure.savefig = savefig
sys.argv[0] = "{script}"
runpy.run_path("{script}", run_name="__main__")
"""
MODULE = """
import runpy
runpy.run_module("{name}", run_name="__main__")
"""


def letters(number: int) -> str:
    return "zqxjzq" + "".join(chr(97 + number // 26**place % 26) for place in range(5))


def marked(rows: Iterable[dict], columns: Iterable[str]) -> list[dict]:
    """Return rows with a word of its own in each of these columns, and in two that nothing reads."""
    columns, made = [*columns, "name"], []
    for number, row in enumerate(rows):
        own = dict(row) | {"name": "Doe"}
        for place, column in enumerate(columns):
            word = letters(number * len(columns) + place)
            if isinstance(own[column], list):
                own[column] = [f"{text} {word}" for text in own[column]]
            else:
                own[column] = f"{own[column]} {word}"
        made.append(own)
    return made


def several(rows: list[dict]) -> list[dict]:
    return [row | {"ward": [row["ward"], "all"] if number % 3 else [row["ward"]]} for number, row in enumerate(rows)]


@pytest.fixture
def runs(tiny_llama, data):
    """Name -> script, rows, columns of texts, and values."""
    decoder = {"model_name_or_path": tiny_llama, "lora_target_modules": "q_proj"}
    decoder |= {"max_source_length": 256}
    context = [row | {"source": f"A leaflet on {row['document']}."} for row in toy_rows()]
    return {
        "qa": ("run_qa_sft.py", context, ["id", "document", "question", "answer", "source"],
               {"group_column": "document", "context_column": "source", "retrieve_examples": 1}),
        "exam": ("run_qa_sft.py", toy_exam(), ["id", "question", "options"],
                 {"options_column": "options", "answer_index_column": "answer_index"}),
        "classes": ("run_classification.py", toy_notes(), ["id", "note"], {"ensemble": "linear"}),
        "several": ("run_classification.py", several(toy_notes()), ["id", "note"], {}),
        "tree": ("run_hierarchical.py", tree_rows(), ["id", "note"], {}),
        "summaries": ("run_summarization.py", toy_dialogues(), ["id", "dialogue", "note"], {}),
        "decoder": ("run_summarization.py", toy_dialogues(), ["id", "dialogue", "note"], decoder),
    }  # fmt: skip


def leaks(told: dict[str, bytes]) -> dict[str, list[str]]:
    found = {name: WORD.findall(content.decode("utf-8", "replace")) for name, content in told.items()}
    return {name: words[:3] for name, words in found.items() if words}


def public(folder) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and "_private" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", ["qa", "exam", "classes", "several", "tree", "summaries", "decoder"])
def test_no_word_of_a_row_is_outside_the_private_folder(name, runs, command, forks, hub, tmp_path, table):
    script, rows, columns, values = runs[name]
    rows = marked(rows, columns)
    file, folder = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "run"
    argv = command(
        script, folder, train_file=file, report_to="tensorboard", push_to_hub=True, hub_model_id=f"tester/leak-{name}",
        test_fraction=0.2, **values,
    )  # fmt: skip
    done = {"run": forks.run(PLOTTED.replace("{script}", script), argv)}
    model, text = ["--model", str(folder)], "dialogue" if "dialogue" in rows[0] else columns[1]
    text = "question" if "question" in rows[0] else text
    wrong = {
        "a number": [rows[0], rows[1] | {text: 7}], "no column": [{"other": rows[0][text]}],
        "an empty text": [rows[0], rows[1] | {text: ""}], "a list": [rows[0] | {text: [rows[0][text]]}],
    }  # fmt: skip
    for fault, given in wrong.items():
        path = write_rows(tmp_path / "wrong" / f"{fault}.jsonl", given)
        done[f"predict: {fault}"] = forks.run(
            "predict.py", [*model, "--input_file", str(path), "--output_file", f"{path}.out"]
        )
    done["predict"] = forks.run(
        "predict.py", [*model, "--input_file", str(file), "--output_file", str(tmp_path / "out")]
    )
    done["evaluation"] = forks.run(MODULE.format(name="utils.evaluation"), ["--output_dir", str(folder)])
    done["privacy"] = forks.run(MODULE.format(name="utils.privacy"), ["--input_file", str(file)])
    formats = {"classes": ["merged", "onnx"], "several": []}.get(name, ["merged"])  # several labels have no export yet
    for kind in formats:
        given = [*model, "--format", kind, "--output_dir", str(tmp_path / "exports" / kind), "--max_loss", "1"]
        done[f"export: {kind}"] = forks.run("export.py", [*given, "--max_predict_samples", "8"])
    for step in ("run", "predict", "evaluation", *(f"export: {kind}" for kind in formats)):
        assert done[step].code == 0, (step, done[step].output[-3000:])
    told = {f"log of {step}": one.output.encode() for step, one in done.items()}
    told |= {f"sent {name}": content for name, content in hub.repos[f"tester/leak-{name}"].files.items()}
    told |= public(folder) | {f"export {name}": content for name, content in public(tmp_path / "exports").items()}
    assert any("tfevents" in name for name in told) and any(name.endswith(".words.txt") for name in told)
    private = b"".join(path.read_bytes() for path in (folder / "_private").rglob("*") if path.is_file())
    assert WORD.search(private.decode("utf-8", "replace"))  # the search finds what is there
    assert leaks(told) == {}
    table.setdefault("leaks", {})[name] = {"files_and_logs": len(told), "with_a_word_of_a_row": 0}
