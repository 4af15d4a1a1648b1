import numpy as np
import pytest
import torch
from conftest import toy_dialogues
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    EvalPrediction,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.trainer_pt_utils import LabelSmoother
from trl import ModelConfig

from utils.adapters import count_parameters, get_lora_config
from utils.arguments import UserError
from utils.evaluation.summaries import predict_summaries, summarize
from utils.generation import generate_answers, score_summaries
from utils.metrics.statistics import reduce_sums, text_statistics
from utils.seq2seq import (
    TRAINING_METRICS,
    check_lengths,
    check_seq2seq_training,
    encode_pairs,
    end_token,
    generation_metrics,
    load_seq2seq_config,
    set_generation,
    token_loss,
)

GENERATION = {"max_new_tokens": 12, "do_sample": False, "num_beams": 1, "no_repeat_ngram_size": 0}


@pytest.fixture(scope="module", params=["tiny_t5", "tiny_encoder_decoder"])
def loaded(request):
    folder = request.getfixturevalue(request.param)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    set_generation(model, tokenizer, end_token(tokenizer), GENERATION)
    return model, tokenizer


TASK = {"columns": {"text": "text"}, "text_template": "{text}", "long_texts": "head", "max_chunks": 8}
TASK |= {"max_source_length": 512, "max_target_length": 64}


@pytest.fixture(scope="module")
def pairs(loaded):
    """Token ids of texts and summaries of very different lengths, in no order."""
    rows = toy_dialogues()[:9]
    texts = [row["dialogue"][: 30 + 41 * (i % 4)].strip() for i, row in enumerate(rows)]
    summaries = [row["note"][: 5 + 17 * (i % 5)] for i, row in enumerate(rows)]
    chunks, lost, tokens, cut = encode_pairs(loaded[1], [{"text": text} for text in texts], summaries, TASK)
    assert chunks == [[text] for text in texts] and lost == [0] * 9
    assert tokens["row"][:] == list(range(9)) and cut == 0
    return tokens["input_ids"][:], tokens["labels"][:]


# ----- Scores and answers of an encoder-decoder


@torch.inference_mode()
def naive_score(model, source, summary) -> float:
    """One row, no padding."""
    start = model.config.decoder_start_token_id
    logits = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[start, *summary[:-1]]])).logits
    return -sum(row[token].item() for row, token in zip(logits[0].log_softmax(-1), summary, strict=True))


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_scores_are_those_of_each_row_alone_without_padding(loaded, pairs, batch_size):
    model, tokenizer = loaded
    nll, tokens = score_summaries(model, *pairs, tokenizer.pad_token_id, batch_size, None)
    assert nll == pytest.approx([naive_score(model, s, t) for s, t in zip(*pairs, strict=True)], abs=1e-4)
    assert tokens.tolist() == [len(t) for t in pairs[1]]


@torch.inference_mode()
def naive_summary(model, tokenizer, source, stop) -> tuple[str, bool]:
    ids = [model.config.decoder_start_token_id]
    for _ in range(GENERATION["max_new_tokens"]):
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([ids])).logits
        ids.append(logits[0, -1].argmax().item())
        if ids[-1] == stop:
            return tokenizer.decode(ids[:-1], skip_special_tokens=True).strip(), True
    return tokenizer.decode(ids, skip_special_tokens=True).strip(), False


def test_summaries_are_greedy_in_order_and_the_same_in_any_batch(loaded, pairs):
    model, tokenizer = loaded
    stop = naive_stop(model, tokenizer, pairs[0])
    expected = [naive_summary(model, tokenizer, source, tokenizer.convert_tokens_to_ids(stop)) for source in pairs[0]]
    for batch_size in (1, 4, 9):
        texts, finished = generate_answers(model, tokenizer, pairs[0], stop, GENERATION, batch_size, None)
        assert list(zip(texts, finished, strict=True)) == expected
    assert len({text for text, _ in expected}) > 1


def naive_stop(model, tokenizer, sources) -> str:
    """A token that the model says in some rows: untrained, it does not end by itself."""
    text, _ = naive_summary(model, tokenizer, sources[0], -1)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokenizer.convert_ids_to_tokens(ids[-1])


def test_beams_find_likelier_summaries_and_the_same_in_any_batch(loaded, pairs):
    model, tokenizer = loaded
    beams = GENERATION | {"num_beams": 4, "length_penalty": 1.0, "early_stopping": True}
    found = [generate_answers(model, tokenizer, pairs[0], end_token(tokenizer), beams, n, None) for n in (1, 4, 9)]
    assert found[0] == found[1] == found[2]


def test_what_a_base_model_brings_along_for_generation_is_not_used(loaded, pairs):
    model, tokenizer = loaded
    greedy = generate_answers(model, tokenizer, pairs[0], end_token(tokenizer), GENERATION, 4, None)
    own = {"min_length": 50, "forced_eos_token_id": 3, "num_beams": 5, "max_length": 99, "do_sample": True}
    start = model.generation_config.decoder_start_token_id
    model.generation_config = type(model.generation_config)(**own, decoder_start_token_id=start)
    set_generation(model, tokenizer, end_token(tokenizer), GENERATION)
    assert generate_answers(model, tokenizer, pairs[0], end_token(tokenizer), GENERATION, 4, None) == greedy
    short = GENERATION | {"max_new_tokens": 3}
    texts, _ = generate_answers(model, tokenizer, pairs[0], end_token(tokenizer), short, 4, None)
    assert all(long.startswith(text) for long, text in zip(greedy[0], texts, strict=True)) and texts != greedy[0]


def test_a_row_of_several_chunks_has_the_sum_of_their_losses_and_one_summary(loaded, pairs):
    model, tokenizer = loaded
    texts = [row["dialogue"][:60] for row in toy_dialogues()[:3]]
    chunks = [[texts[0]], [texts[1], texts[2]], [texts[2]]]
    ids, labels = (pairs[i][:4] for i in (0, 1))  # of the four chunks, in any words
    task = {"stop": end_token(tokenizer), "generation": GENERATION}
    tokens = Dataset.from_dict({"input_ids": ids, "labels": labels, "row": [0, 1, 1, 2]})
    made = {"chunks": chunks, "tokens": tokens}
    found = predict_summaries(model, tokenizer, made, task, 2, "test")
    nll = [naive_score(model, source, summary) for source, summary in zip(ids, labels, strict=True)]
    assert found["nll"] == pytest.approx([nll[0], nll[1] + nll[2], nll[3]], abs=1e-4)
    sizes = [len(own) for own in labels]
    assert found["tokens"].tolist() == [sizes[0], sizes[1] + sizes[2], sizes[3]]
    written = summarize(model, tokenizer, chunks, task, 2, None)
    assert (found["prediction"], found["finished"]) == written and len(written[0]) == 3
    scores = predict_summaries(model, tokenizer, made, task, 2, "test", with_texts=False)
    assert scores.keys() == {"nll", "tokens"} and np.array_equal(scores["nll"], found["nll"])


# ----- What an evaluation during training measures


@pytest.mark.parametrize("use_stemmer", [True, False])
def test_metrics_during_training_are_those_of_the_evaluation_without_padding(loaded, use_stemmer):
    _, tokenizer = loaded
    texts = [[row["note"] for row in toy_dialogues()[start : start + 6]] for start in (0, 20)]
    padded = []
    for own in texts:
        ids = tokenizer(own)["input_ids"]
        padded.append(np.array([row + [-100] * (max(map(len, ids)) - len(row)) for row in ids]))
    found = generation_metrics(tokenizer, use_stemmer)(EvalPrediction(*padded))
    read = [tokenizer.batch_decode(tokenizer(own)["input_ids"], skip_special_tokens=True) for own in texts]
    statistics = text_statistics(*read, use_stemmer)
    assert set(found) == set(TRAINING_METRICS)
    for name in TRAINING_METRICS:
        assert found[name] == pytest.approx(float(reduce_sums(name, statistics[name].sum(axis=0)))) and found[name] > 0


# ----- The loss


def random_batch() -> tuple[Seq2SeqLMOutput, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 50, (4, 7), generator=generator)
    labels[0, 3:] = labels[2, 6:] = -100
    return Seq2SeqLMOutput(logits=torch.randn(4, 7, 50, generator=generator)), labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_step_is_the_mean_over_its_tokens_however_it_is_cut(smoothing):
    outputs, labels = random_batch()
    loss, items = token_loss(smoothing), (labels != -100).sum()
    whole = loss(outputs, labels)
    parts = sum(loss(Seq2SeqLMOutput(logits=outputs.logits[i : i + 1]), labels[i : i + 1], items) for i in range(4))
    assert float(parts) == pytest.approx(float(whole), abs=1e-6)
    known = LabelSmoother(epsilon=smoothing)({"logits": outputs.logits}, labels)
    assert float(whole) == pytest.approx(float(known), abs=1e-6)


# ----- Pairs


def test_a_summary_that_is_too_long_keeps_its_end_token(loaded):
    _, tokenizer = loaded
    summaries = [toy_dialogues()[0]["note"], "rest"]
    _, _, tokens, cut = encode_pairs(
        tokenizer, [{"text": "a"}, {"text": "b"}], summaries, TASK | {"max_target_length": 6}
    )
    assert [len(label) for label in tokens["labels"]] == [6, len(tokens["labels"][1])] and cut == 1
    assert {label[-1] for label in tokens["labels"]} == {tokenizer.convert_tokens_to_ids(end_token(tokenizer))}


def test_a_window_without_a_sentence_is_left_out_and_none_of_the_summary_is(loaded):
    _, tokenizer = loaded
    rows = [{"text": "I have a fever.\nThank you very much, and see you next week."}, {"text": "It is surgery."}]
    own = TASK | {"max_source_length": 12, "long_texts": "chunks"}
    chunks, lost, tokens, _ = encode_pairs(tokenizer, rows, ["Fever fever.", "Surgery."], own)
    assert len(chunks[0]) > 1 and not any(lost)
    assert tokens["row"][:] == [0, 1]


def test_rows_are_tokenized_alike_in_batches_of_any_size(loaded, monkeypatch):
    rows = [{"text": row["dialogue"]} for row in toy_dialogues()[:7]]
    notes = [row["note"] for row in toy_dialogues()[:7]]
    own = TASK | {"max_source_length": 24, "long_texts": "chunks", "max_target_length": 9}

    def encoded():
        chunks, lost, tokens, cut = encode_pairs(loaded[1], rows, notes, own)
        return chunks, lost, tokens.to_list(), cut

    whole = encoded()
    assert len(whole[2]) > 7 and whole[3]  # several chunks a row, and summaries that were cut
    for size in (1, 3):
        monkeypatch.setattr("utils.seq2seq.BATCH", size)
        assert encoded() == whole


# ----- Limits and mistakes


def test_lengths_beyond_the_positions_are_refused(tiny_encoder_decoder):
    config = AutoConfig.from_pretrained(tiny_encoder_decoder)
    check_lengths(config, max_source_length=128, max_target_length=128, max_new_tokens=128)
    check_lengths(T5Config(d_model=8, d_ff=8, num_layers=1), max_source_length=10**6)
    for key in ("max_source_length", "max_target_length", "max_new_tokens"):
        for wrong in (129, 0, -5):
            with pytest.raises(UserError, match=f"`{key}` is {wrong}: this model supports .* to 128 tokens"):
                check_lengths(config, **{key: wrong})


def test_an_encoder_is_sent_to_its_script_and_a_decoder_may_summarize(tiny_bert, tiny_llama):
    with pytest.raises(UserError, match="`model_name_or_path` .*run_classification.py"):
        load_seq2seq_config(ModelConfig(model_name_or_path=str(tiny_bert)), fp16=False)
    assert load_seq2seq_config(ModelConfig(model_name_or_path=str(tiny_llama)), fp16=False).model_type == "llama"


@pytest.mark.parametrize(("fp16", "dtype"), [(True, "float32"), (False, "float16")])
def test_float16_is_refused_for_t5_and_not_for_others(tiny_t5, tiny_encoder_decoder, fp16, dtype):
    with pytest.raises(UserError, match="overflows in float16.*transformers#23918"):
        load_seq2seq_config(ModelConfig(model_name_or_path=str(tiny_t5), dtype=dtype), fp16)
    load_seq2seq_config(ModelConfig(model_name_or_path=str(tiny_encoder_decoder), dtype=dtype), fp16)
    load_seq2seq_config(ModelConfig(model_name_or_path=str(tiny_t5), dtype="bfloat16"), fp16=False)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"metric_for_best_model": "rougeL"}, "set `predict_with_generate: true`"),
        (
            {"metric_for_best_model": "accuracy", "predict_with_generate": True},
            "`metric_for_best_model` is accuracy: .*loss, rouge1",
        ),
    ],
)
def test_training_arguments_that_contradict_are_named(tmp_path, values, expected):
    with pytest.raises(UserError, match=expected):
        check_seq2seq_training(Seq2SeqTrainingArguments(output_dir=tmp_path, use_cpu=True, **values))


def test_the_recipe_of_flan_t5_trains_the_weights_that_it_says():
    shape = {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12, "feed_forward_proj": "gated-gelu"}
    from peft import get_peft_model

    for targets, expected in ((["q", "v"], 884_736), (["q", "k", "v", "o", "wi_0", "wi_1", "wo"], 3_391_488)):
        with torch.device("meta"):
            model = T5ForConditionalGeneration(T5Config(**shape, tie_word_embeddings=False))
            args = ModelConfig(use_peft=True, lora_r=8, lora_target_modules=targets)
            model = get_peft_model(model, get_lora_config(args, model, "SEQ_2_SEQ_LM"))
        assert count_parameters(model)["trainable_parameters"] == expected
