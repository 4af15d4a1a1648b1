"""A classifier in ONNX Runtime gives the classes of the trained one, in float32 or int8, and is served like a run."""

import pytest
from conftest import PARENT, run_here, toy_notes
from test_merged import class_run_on, exported, refused, summary_run_on

import run_hierarchical
from utils.arguments import UserError
from utils.export import onnx
from utils.inference import Predictor

TEXTS = [row["note"] for row in toy_notes()[:9]]
SHAPES = [
    ("tiny_bert", ["query", "value"], ["classifier"], "mean"),
    ("tiny_distilbert", ["q_lin"], ["pre_classifier", "classifier"], "first"),
]


@pytest.mark.parametrize(("name", "targets", "heads", "pooling"), SHAPES)
def test_in_float32_every_logit_is_that_of_the_trained_model(name, targets, heads, pooling, request, tmp_path):
    run = class_run_on(tmp_path / "run", request.getfixturevalue(name), targets, heads, pooling)
    results = exported(run, tmp_path / "onnx", format="onnx", quantization="none")
    assert results["exact"] and results["equal_answers"] == results["rows"] == 40
    before, after = (Predictor.from_pretrained(str(folder)) for folder in (run, tmp_path / "onnx"))
    for batch_size in (1, 4):  # any number of rows, of any length
        rows = zip(before(TEXTS, batch_size), after(TEXTS, batch_size), strict=True)
        for then, now in rows:
            assert now["prediction"] == then["prediction"] and now["abstained"] == then["abstained"]
            assert now["probabilities"] == pytest.approx(then["probabilities"], abs=1e-4)


def test_int8_is_smaller_and_judged_by_its_metrics(tiny_bert, tmp_path):
    run = class_run_on(tmp_path / "run", tiny_bert, ["query"], ["classifier"])
    results = exported(run, tmp_path / "int8", format="onnx", max_loss=0.2)
    assert not results["exact"] and results["quantization"] == "int8" and "export_ece" in results
    exported(run, tmp_path / "float32", format="onnx", quantization="none")
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("int8", "float32")]
    assert sizes[0] < sizes[1] and not list((tmp_path / "int8").glob("*.safetensors"))
    assert all(row["prediction"] for row in Predictor.from_pretrained(str(tmp_path / "int8"))(TEXTS))
    assert "are the trained model's" in (tmp_path / "int8" / "README.md").read_text(encoding="utf-8")


def test_a_tree_keeps_its_levels_and_thresholds(tiny_bert, data, tmp_path):
    argv = ["--model_name_or_path", tiny_bert, "--train_file", data.tree, "--text_column", "note"]
    argv += ["--parent_column", "group", "--child_column", "ward", "--use_peft", "true", "--lora_target_modules"]
    argv += ["query", "--max_steps", "2", "--max_length", "32", "--use_cpu", "true", "--save_strategy", "no"]
    argv += ["--report_to", "none", "--output_dir", tmp_path / "run", "--near_duplicate_threshold", "1.0"]
    done = run_here(run_hierarchical.main, run_hierarchical.ARGUMENTS, [*map(str, argv)])
    assert done.code == 0, done.stderr
    results = exported(tmp_path / "run", tmp_path / "onnx", format="onnx", quantization="none")
    assert results["equal_answers"] == results["rows"]
    before, after = (Predictor.from_pretrained(str(folder))(TEXTS) for folder in (tmp_path / "run", tmp_path / "onnx"))
    for then, now in zip(before, after, strict=True):
        assert now["prediction"] == then["prediction"] and now["shown"] == then["shown"]
        assert now["prediction"][0] == PARENT[now["prediction"][1]]


def test_a_broken_graph_is_refused_and_deleted(tiny_bert, tmp_path, monkeypatch):
    run = class_run_on(tmp_path / "run", tiny_bert, ["query"], ["classifier"])
    whole = onnx._Logits.forward

    def forward(self, input_ids, attention_mask):
        return whole(self, input_ids, attention_mask).flip(1)

    monkeypatch.setattr(onnx._Logits, "forward", forward)
    assert str(run) in refused(run, tmp_path / "onnx", format="onnx", quantization="none")


def test_what_a_format_has_not_is_one_line(tiny_bert, tiny_t5, tmp_path, monkeypatch):
    run = class_run_on(tmp_path / "run", tiny_bert, ["query"], ["classifier"])
    summaries = summary_run_on(tmp_path / "summaries", tiny_t5, ["q"])
    assert "`format`" in refused(summaries, tmp_path / "onnx", format="onnx")
    assert "`quantization`" in refused(run, tmp_path / "onnx", format="onnx", quantization="int3")
    assert "`quantization`" in refused(run, tmp_path / "onnx", format="merged", quantization="int8")
    assert "`dtype`" in refused(run, tmp_path / "onnx", format="onnx", dtype="float16")
    monkeypatch.setattr("utils.export.formats.find_spec", lambda name: None)
    assert "onnxruntime" in refused(run, tmp_path / "onnx", format="onnx")


def test_a_file_that_is_damaged_is_named_when_it_is_served(tiny_bert, tmp_path):
    run = class_run_on(tmp_path / "run", tiny_bert, ["query"], ["classifier"])
    exported(run, tmp_path / "onnx", format="onnx", quantization="none")
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match="model.onnx"):
        Predictor.from_pretrained(str(tmp_path / "onnx"))
