import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from utils.quickstart.warm_start import bart_from_bert, least_squares, seq2seq_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{number}" for number in range(200)]


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {token: number for number, token in enumerate(SPECIAL + WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.enable_truncation(4)
    names = ("pad", "unk", "cls", "sep", "mask")
    special = {f"{name}_token": token for name, token in zip(names, SPECIAL, strict=True)}
    return seq2seq_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=32, **special))


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=205, hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=32, pad_token_id=0,
    )  # fmt: skip
    return BertModel(config).eval()


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(1)
    return [" ".join(WORDS[i] for i in torch.randperm(200, generator=generator)[:12]) for _ in range(300)]


@pytest.fixture(scope="module")
def model(bert, tokenizer, texts):
    return bart_from_bert(bert, tokenizer, 2, texts)


def test_a_text_ends_with_the_end_token_is_not_cut_and_begins_with_its_first_word(tokenizer):
    ids = tokenizer("w0 w1 w2 w3 w4")["input_ids"]
    assert ids == [5, 6, 7, 8, 9, 3] and tokenizer.eos_token == "[SEP]"
    assert tokenizer("w0", "w1")["input_ids"] == [5, 3, 6, 3]


def test_the_encoder_computes_what_berts_layers_compute(model, bert, tokenizer, texts):
    batch = tokenizer([texts[0], "w1 w2 w3"], padding=True, return_tensors="pt")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.inference_mode():
        expected = bert(**inputs, output_hidden_states=True).hidden_states[2]
        found = model.model.encoder(**inputs).last_hidden_state
    kept = inputs["attention_mask"].bool()
    torch.testing.assert_close(found[kept], expected[kept], atol=1e-3, rtol=1e-3)


def test_all_weights_come_from_bert_or_the_fit_so_that_two_are_equal(model, bert, tokenizer, texts):
    torch.manual_seed(5)
    again = bart_from_bert(bert, tokenizer, 2, texts).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    layer, source = model.model.decoder.layers[0], bert.encoder.layer[0]
    assert torch.equal(layer.encoder_attn.v_proj.weight, source.attention.self.value.weight)
    assert torch.equal(layer.fc2.weight, source.output.dense.weight)
    assert model.lm_head.weight is model.model.shared.weight


def test_a_saved_model_goes_on_with_its_own_special_tokens(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    config = type(model).from_pretrained(tmp_path).generation_config
    assert (config.decoder_start_token_id, config.eos_token_id, config.pad_token_id) == (2, 3, 0)
    assert config.forced_eos_token_id is None


def test_least_squares_finds_a_linear_map():
    generator = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator)
    inputs = torch.randn(500, 5, generator=generator) + 2
    found = least_squares(inputs, inputs @ weight.T + bias)
    torch.testing.assert_close(found[0], weight, atol=0.01, rtol=0.01)
    torch.testing.assert_close(found[1], bias, atol=0.02, rtol=0.02)
