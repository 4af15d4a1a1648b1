"""Decoders that summarize: what they read and learn, their numbers, serving, and a paired comparison with an
encoder-decoder on the same rows."""

import json

import pytest
import torch
from conftest import toy_dialogues
from test_run_summarization import refused, run_main
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

import export
from utils.chat import chat_prompt
from utils.chunking import cut_sources, source_ids
from utils.inference import Predictor
from utils.seq2seq import DecoderCollator, encode_pairs, token_loss, training_rows
from utils.sweeps.compare import compare_runs

VALUES = {"max_source_length": 200, "test_fraction": 0.2, "text_template": "Write a note: {text}", "max_new_tokens": 6}
DECODER = VALUES | {"lora_target_modules": ["q_proj", "v_proj"], "dtype": "float32"}


@pytest.fixture(scope="module")
def runs(tiny_llama, tiny_t5, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoders")
    decoder = run_main(tiny_llama, folder / "decoder", train_file=data.dialogues, **DECODER)
    return decoder, run_main(tiny_t5, folder / "encoder-decoder", train_file=data.dialogues, **VALUES)


@torch.no_grad()
def test_the_loss_covers_the_summary_alone_after_the_prompt_of_serving(runs, tiny_llama):
    run, nll, tokens = runs[0], 0.0, 0
    tokenizer, model = AutoTokenizer.from_pretrained(run.folder), AutoModelForCausalLM.from_pretrained(tiny_llama)
    for row in run.predictions:
        ((text,),), _ = cut_sources(tokenizer, [{"dialogue": row["source"]}], run.task)  # some are longer
        assert text.startswith("Write a note: Doctor")
        prompt = chat_prompt(tokenizer, [{"role": "user", "content": text}])
        start = len(tokenizer(prompt)["input_ids"])
        ids = torch.tensor([tokenizer(prompt + row["reference"] + "<|im_end|>")["input_ids"]])
        logits = model(input_ids=ids).logits[0, start - 1 : -1]
        nll += torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="sum").item()
        tokens += ids.shape[1] - start
    assert run.results["base_test_loss"] == pytest.approx(nll / tokens, abs=1e-3)


def test_each_label_is_the_next_token_of_the_summary(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    task = {"columns": {"text": "dialogue", "summary": "note"}, "text_template": "{text}", "chat": True}
    task |= {"max_source_length": 90, "long_texts": "chunks", "max_chunks": 4}
    rows = toy_dialogues()[:6]
    chunks, _ = cut_sources(tokenizer, rows, task)
    assert max(map(len, chunks)) > 1
    lengths = [len(ids) for own in chunks for ids in source_ids(tokenizer, own, True)]
    assert max(lengths) <= 90  # the chat template counts
    _, _, tokens, _ = encode_pairs(tokenizer, rows, [row["note"] for row in rows], task | {"max_target_length": 64})
    for row, source, summary in zip(training_rows(tokens, True), tokens["input_ids"], tokens["labels"], strict=True):
        whole = source + summary
        assert row["input_ids"] == whole[:-1] and len(row["labels"]) == len(row["input_ids"])
        assert all(label in (-100, token) for label, token in zip(row["labels"], whole[1:], strict=True))
        assert [label for label in row["labels"] if label != -100] == summary
        assert summary[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_phi3", "tiny_phi"])
def test_logits_of_summaries_alone_give_the_same_loss_and_gradient(name, request):
    tokenizer = AutoTokenizer.from_pretrained(folder := request.getfixturevalue(name))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = [
        {"input_ids": list(range(5, 5 + source + summary)), "labels": [-100] * source + list(range(9, 9 + summary))}
        for source, summary in ((30, 3), (4, 9), (17, 1))
    ]
    found = []
    for kind in (DataCollatorForSeq2Seq, DecoderCollator):
        model.zero_grad()
        batch = kind(tokenizer, model)(rows)
        labels = batch.pop("labels")
        outputs = model(**batch)
        loss = token_loss(0.1)(outputs, labels)
        loss.backward()
        norms = torch.stack([own.grad.norm() for own in model.parameters() if own.grad is not None])
        found.append((outputs.logits.shape, loss.item(), norms))
    (shape, loss, norms), (fewer, same_loss, same_norms) = found
    assert shape[1] == 33 and fewer[1] == 13  # columns in which any row has a label
    assert same_loss == pytest.approx(loss, abs=1e-5) and torch.allclose(same_norms, norms, atol=1e-5)


def test_the_predictor_summarizes_as_the_evaluation_did(runs):
    run = runs[0]
    assert run.task["chat"] is True and run.task["stop"] == "<|im_end|>"
    assert json.loads((run.folder / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"
    answers = Predictor.from_pretrained(str(run.folder))([row["source"] for row in run.predictions], batch_size=3)
    assert [a["prediction"] for a in answers] == [row["prediction"] for row in run.predictions]
    assert [a["cut"] for a in answers] == [row["cut"] for row in run.predictions]


def test_a_decoder_and_an_encoder_decoder_are_compared_on_the_same_rows(runs, tmp_path):
    compare_runs([str(run.folder) for run in runs], tmp_path)
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["test_rows"] == 4 and "delta_encoder-decoder_rouge1" in found


def test_what_a_decoder_cannot_do_is_refused_in_one_line(tiny_llama, tiny_phi, tiny_bert, data, tmp_path):
    given = DECODER | {"train_file": data.dialogues}
    bare = {key: value for key, value in given.items() if key != "text_template"}
    assert "`text_template`" in refused(tiny_phi, tmp_path / "a", **bare)
    assert "`no_repeat_ngram_size`" in refused(tiny_llama, tmp_path / "b", **given, no_repeat_ngram_size=3)
    assert "`predict_with_generate`" in refused(tiny_llama, tmp_path / "c", **given, predict_with_generate=True)
    assert "`model_name_or_path`" in refused(tiny_bert, tmp_path / "d", **given)


@pytest.mark.parametrize("which", [0, 1], ids=["decoder", "encoder-decoder"])
def test_a_merged_export_answers_like_the_run(runs, which, tmp_path):
    export.main(export.ExportArguments(model=str(runs[which].folder), output_dir=str(tmp_path / "merged")))
    found = json.loads((tmp_path / "merged" / "export.json").read_text())
    assert found["exact"] and found["equal_answers"] == found["rows"] == len(runs[which].predictions)
    assert found["max_logit_difference"] <= 1e-3
