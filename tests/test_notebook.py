"""The notebook runs from its first cell to its last, and is stored without outputs."""

import nbformat
import pytest
from conftest import ROOT, Data

nbclient = pytest.importorskip("nbclient")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_notebooks_are_stored_without_outputs():
    cells = [cell for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)


def test_the_notebook_goes_from_a_csv_to_a_prediction(tiny_bert, data: Data, tmp_path, monkeypatch):
    file = tmp_path / "notes.csv"
    file.write_text(data.notes.read_text().replace("note", "text", 1).replace("ward", "label", 1))
    for name, value in {"MODEL": tiny_bert, "FILE": file, "OUTPUT": tmp_path / "run", "EPOCHS": 1}.items():
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(ROOT / "notebooks" / "csv_to_adapter.ipynb", 4)
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3", resources=resources).execute()
    assert (tmp_path / "run" / "adapter_model.safetensors").exists() and (tmp_path / "run" / "report.html").exists()
    (result,) = (out for out in notebook.cells[-2].outputs if out.output_type == "execute_result")
    assert result.data["text/plain"].count("prediction") == 2
