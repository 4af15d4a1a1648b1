"""A saved model outside of this code: plain transformers and PEFT do what it does here, or its card says not."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SIZES, Run, flags, qa_flags, run_here, save_model, toy_notes, word_tokenizer
from huggingface_hub import metadata_load
from test_run_summarization import summary_flags
from transformers import AutoConfig, AutoModelForSequenceClassification, ModernBertConfig, ModernBertModel

import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from utils.evaluation.encoders import last_layer
from utils.heads import pools_by_config, prepare_classifier
from utils.inference import Predictor

N = 32  # classes, as many as hidden units: the shape of a layer does not tell which is the last one
BERT = {
    "vocab_size": 60, "hidden_size": N, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": N,
    "initializer_range": 0.5,
}  # fmt: skip
LLAMA = BERT | {"num_key_value_heads": 2, "pad_token_id": 0}
MODERN = BERT | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
T5 = {"vocab_size": 60, "d_model": N, "d_kv": 8, "d_ff": N, "num_layers": 1, "num_heads": 2, "initializer_factor": 5.0,
    "decoder_start_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
BART = {
    "vocab_size": 60, "d_model": N, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": N, "decoder_ffn_dim": N, "init_std": 0.5, "eos_token_id": 2,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "bert": BERT,
    "roberta": BERT | {"pad_token_id": 0},
    "electra": BERT | {"embedding_size": N},
    "albert": BERT | {"embedding_size": N},
    "deberta-v2": BERT,
    "distilbert": {"vocab_size": 60, "dim": N, "hidden_dim": N, "n_layers": 1, "n_heads": 2},
    "modernbert": MODERN,
    "eurobert": LLAMA,
    "xlnet": {"vocab_size": 60, "d_model": N, "n_layer": 1, "n_head": 2, "d_inner": N},
    "gpt2": {"vocab_size": 60, "n_embd": N, "n_layer": 1, "n_head": 2, "pad_token_id": 0},
    "llama": LLAMA,
    "bart": BART,
    "t5": T5,
}
IDS = torch.tensor([[5, 9, 11, 2], [7, 8, 2, 0]])
MASK = (IDS > 0).long()
NOTES = [row["note"] for row in toy_notes()[:12]]


def classifier(kind: str, **values: Any) -> tuple[Any, list[str]]:
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **KINDS[kind], num_labels=N, **values)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    heads = [name for name, _ in model.named_children() if name != model.base_model_prefix]
    return model, heads


@torch.no_grad()
def logits_of(model: Any) -> torch.Tensor:
    return model(input_ids=IDS, attention_mask=MASK).logits


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layer_of_a_classifier_scales_its_logits(kind):
    model, heads = classifier(kind)
    before, layer = logits_of(model), last_layer(model, heads, N)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter /= 4
    assert torch.allclose(logits_of(model), before / 4, atol=1e-5) and before.std() > 1e-3


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "xlnet", "gpt2", "llama"])
def test_mean_pooling_reaches_the_head_wherever_it_reads(kind):
    model, heads = classifier(kind)
    prepare_classifier(model, heads, "mean")
    seen: list[torch.Tensor] = []
    model.base_model.register_forward_hook(lambda *call: seen.append(call[-1].last_hidden_state))
    found = logits_of(model)
    assert torch.allclose(seen[0], seen[0][:, :1].expand_as(seen[0]))  # the same at each position
    assert not torch.allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize(("kind", "first"), [("modernbert", "cls"), ("eurobert", "bos")])
def test_mean_pooling_is_in_the_configuration_where_the_architecture_has_it(kind, first, tmp_path):
    by_hook, heads = classifier(kind, classifier_pooling=first)
    saved, _ = classifier(kind, classifier_pooling=first)
    prepare_classifier(saved, heads, "mean").save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert pools_by_config(plain) and plain.config.classifier_pooling == "mean"
    assert torch.allclose(logits_of(plain), logits_of(saved), atol=1e-6)
    hidden = by_hook.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state
    mean = (hidden * MASK[..., None]).sum(1, keepdim=True) / MASK.sum(1)[:, None, None]
    by_hook.base_model.register_forward_hook(lambda module, args, output: setattr(output, "last_hidden_state", mean))
    assert torch.allclose(logits_of(plain), logits_of(by_hook), atol=1e-5)


# ----- Runs


@pytest.fixture(scope="module")
def tiny_modernbert(tmp_path_factory) -> Path:
    tokenizer = word_tokenizer([word for note in NOTES for word in re.findall(r"\w+", note.lower())])
    tokenizer.eos_token = "[SEP]"
    config = ModernBertConfig(**SIZES, cls_token_id=2, sep_token_id=3, initializer_range=0.1)
    return save_model(tmp_path_factory.mktemp("models") / "tiny-modernbert", ModernBertModel, config, tokenizer)


def train(script: Any, model: Path, folder: Path, data: Path, **values: Any) -> Run:
    defaults = {
        "model_name_or_path": model, "output_dir": folder / "run", "use_cpu": True, "bf16": False, "use_peft": True,
        "lora_r": 4, "max_length": 32, "max_steps": 8, "per_device_train_batch_size": 8, "learning_rate": 1e-2,
        "save_strategy": "no", "report_to": "none", "text_column": "note", "near_duplicate_threshold": 1.0,
        "train_file": data, "seed": 3, "license": "apache-2.0",
    }  # fmt: skip
    done = run_here(script.main, script.ARGUMENTS, flags(**defaults | values))
    assert done.code == 0, done.stderr[-2000:]
    return done


def classify_by_card(folder: Path, base: Path, texts: list[str], max_length: int, monkeypatch: Any) -> list[dict]:
    """Run the code of a card, as a stranger does, and return the probabilities by class."""
    (folder.parent / base.name).symlink_to(base)
    monkeypatch.chdir(folder.parent)  # a card names folders without their path
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[-1]
    assert "utils" not in code
    names: dict[str, Any] = {}
    exec(code, names)
    found = names["classify"](texts, top_k=None, truncation=True, max_length=max_length)
    return [{answer["label"]: answer["score"] for answer in row} for row in found]


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("tiny_distilbert", {"use_peft": False, "lora_r": None, "text_template": "{text} today"}),
        ("tiny_bert", {"lora_target_modules": ["query", "value"]}),
        ("tiny_modernbert", {"lora_target_modules": ["Wqkv"], "pooling": "mean"}),
        ("tiny_modernbert", {"use_peft": False, "lora_r": None, "pooling": "mean"}),
        ("tiny_gpt2", {"lora_target_modules": ["c_attn"]}),  # the last token decides, and there is no pad token
    ],
)
def test_plain_transformers_makes_the_predictions_where_the_card_says_so(model, values, data, request, monkeypatch):
    base, folder = request.getfixturevalue(model), request.getfixturevalue("tmp_path")
    done = train(run_classification, base, folder, data.notes, label_column="ward", **values)
    assert done.task["beyond_weights"] == [] and abs(done.task["temperature"] - 1) > 0.01
    answers = Predictor.from_pretrained(str(done.folder))(NOTES)
    rows = {row["source"]: row["confidence"] for row in done.predictions}
    written = [source.removesuffix(" today") for source in rows]  # the source is the filled template
    again = Predictor.from_pretrained(str(done.folder))(written)
    assert [answer["confidence"] for answer in again] == pytest.approx(list(rows.values()), abs=1e-4)
    texts = [values.get("text_template", "{text}").replace("{text}", note) for note in NOTES]
    for answer, found in zip(answers, classify_by_card(done.folder, base, texts, 32, monkeypatch), strict=True):
        assert found == pytest.approx(answer["probabilities"], abs=1e-4)
        assert max(found, key=found.get) == answer["prediction"]
    card = metadata_load(done.folder / "README.md")
    assert card["pipeline_tag"] == "text-classification" and "inference" not in card
    assert card["library_name"] == ("transformers" if values.get("use_peft") is False else "peft")
    assert card["license"] == "apache-2.0"


@pytest.mark.parametrize(
    ("script", "values"),
    [
        (run_classification, {"label_column": "ward", "pooling": "mean"}),
        (run_classification, {"label_column": "ward", "ensemble": "linear"}),
        (run_classification, {"label_column": "ward", "ensemble": "prior"}),
        (run_hierarchical, {"parent_column": "group", "child_column": "ward"}),
    ],
)
def test_a_card_promises_no_pipeline_where_predictions_need_more_than_weights(
    script, values, tiny_bert, data, tmp_path
):
    done = train(script, tiny_bert, tmp_path, data.tree, use_peft=False, lora_r=None, license=None, **values)
    text = (done.folder / "README.md").read_text()
    card = metadata_load(done.folder / "README.md")
    assert "pipeline_tag" not in card and card["library_name"] == "pytorch" and card["inference"] is False
    assert "AutoModel" not in text and "pipeline(" not in text and "Plain `transformers`" in text
    assert "license" not in card
    answers = Predictor.from_pretrained(str(done.folder))([row["source"] for row in done.predictions])
    found = [np_last(answer["confidence"]) for answer in answers]
    assert found == pytest.approx([np_last(row["confidence"]) for row in done.predictions], abs=1e-4)


def np_last(confidence: Any) -> float:
    """Return the confidence of the leaf; a tree has one a level."""
    return confidence[-1] if isinstance(confidence, list) else confidence


CAUSAL = {"lora_target_modules": ["q_proj", "v_proj"], "dtype": "float32"}


@pytest.mark.parametrize(
    ("script", "model", "values"),
    [
        (run_qa_sft, "tiny_llama", {"system_prompt": 'Say "no" or\nyes.'}),
        (run_qa_sft, "tiny_phi", {"prompt_template": "Question: {question}\nAnswer:", "use_peft": False}),
        (run_qa_sft, "tiny_phi3", {"lora_target_modules": ["qkv_proj"], "retrieve_examples": 2}),
        (run_summarization, "tiny_t5", {"text_template": "Summarize: {text}", "num_beams": 2}),
        (run_summarization, "tiny_encoder_decoder", {"use_peft": False, "max_target_length": 64}),
        (run_summarization, "tiny_llama", {"text_template": "Write a note: {text}", **CAUSAL}),
    ],
)
def test_plain_transformers_writes_what_the_predictor_writes(
    script, model, values, data, request, tmp_path, monkeypatch, capsys
):
    base = request.getfixturevalue(model)
    asks = script is run_qa_sft
    if values.get("use_peft") is False:
        values = values | {"lora_r": None, "lora_alpha": None, "lora_target_modules": None}
    argv = (qa_flags if asks else summary_flags)(
        base,
        tmp_path / "run",
        train_file=data.qa if asks else data.dialogues,
        max_steps=6,
        learning_rate=1e-2,
        **values,
    )
    done = run_here(script.main, script.ARGUMENTS, argv)
    assert done.code == 0, done.stderr[-2000:]
    card = (done.folder / "README.md").read_text()
    assert ("`{examples}` is empty" in card) == ("retrieve_examples" in values)
    if not (tmp_path / base.name).exists():
        (tmp_path / base.name).symlink_to(base)
    monkeypatch.chdir(tmp_path)  # a card names folders without their path
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[-1]
    assert "utils" not in code and max(map(len, code.splitlines())) < 200
    capsys.readouterr()
    exec(code, {})
    written = capsys.readouterr().out.strip()
    own = Predictor.from_pretrained(str(done.folder))
    own.examples = None  # which the card's code has not
    example = re.search(r'--text "(.*?)"', card)[1]
    assert written == own([example])[0]["prediction"].strip() and written
