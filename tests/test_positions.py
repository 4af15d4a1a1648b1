"""The positions of a model are what it can read: one token more fails, in every family."""

import logging

import pytest
import torch
import transformers as tf

from utils.arguments import UserError
from utils.positions import check_positions, empty_model, position_limit

BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SIZES = BERT | {"vocab_size": 50, "max_position_embeddings": 24}
GPT = {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 24}
SEQ2SEQ = {
    "vocab_size": 50, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
}  # fmt: skip
LED = tf.LEDConfig(
    **SEQ2SEQ, max_encoder_position_embeddings=24, max_decoder_position_embeddings=8, attention_window=8
)
LIMITED = [
    (tf.BertConfig(**SIZES), 24),
    (tf.RobertaConfig(**SIZES), 22),  # the first position is that after its padding token
    (tf.DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=24), 24),
    (tf.ElectraConfig(**SIZES, embedding_size=16), 24),
    (tf.MPNetConfig(**SIZES), 22),
    (tf.GPT2Config(**GPT), 24),
    (tf.GPTJConfig(**GPT, rotary_dim=4), 24),
    (tf.OPTConfig(**SIZES, ffn_dim=16, word_embed_proj_dim=16), 24),
    (tf.BioGptConfig(**SIZES), 24),
    (tf.BartConfig(**SEQ2SEQ, max_position_embeddings=24), 24),
    (tf.PegasusConfig(**SEQ2SEQ, max_position_embeddings=24), 24),
    (LED, 24),
    (tf.EncoderDecoderConfig.from_encoder_decoder_configs(tf.BertConfig(**SIZES), tf.BertConfig(**SIZES)), 24),
]  # fmt: skip
UNLIMITED = [
    tf.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2),
    tf.LlamaConfig(**SIZES),
    tf.PhiConfig(**SIZES),
    tf.M2M100Config(**SEQ2SEQ, max_position_embeddings=24),
    tf.DebertaV2Config(**SIZES, relative_attention=True, position_biased_input=False, pos_att_type="p2c|c2p"),
]


def reads(model, tokens: int) -> bool:
    ids = torch.full((1, tokens), 7)
    more = {"decoder_input_ids": ids[:, :4]} if model.config.is_encoder_decoder else {}
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), **more)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize(("config", "limit"), LIMITED, ids=[config.model_type for config, _ in LIMITED])
def test_a_model_reads_its_positions_and_not_one_token_more(config, limit):
    model = type(empty_model(config))(config).eval()
    side = "encoder" if config.is_encoder_decoder else ""
    assert position_limit(model, side) == position_limit(empty_model(config), side) == limit
    assert reads(model, limit) and not reads(model, limit + 1)


@pytest.mark.parametrize("config", UNLIMITED, ids=[config.model_type for config in UNLIMITED])
def test_relative_and_rotary_positions_have_no_limit(config):
    assert position_limit(empty_model(config)) is None
    assert reads(type(empty_model(config))(config).eval(), 40)


def test_the_two_sides_of_a_model_have_limits_of_their_own():
    model = empty_model(LED)
    assert (position_limit(model, "encoder"), position_limit(model, "decoder"), position_limit(model)) == (24, 8, 8)


def test_text_and_answer_share_the_positions_of_a_causal_model(caplog):
    for config in (tf.GPT2Config(**GPT), tf.OPTConfig(**SIZES, ffn_dim=16, word_embed_proj_dim=16)):
        check_positions(config, False, {"max_length": 16, "max_new_tokens": 8})
        for lengths in ({"max_length": 16, "max_new_tokens": 9}, {"max_length": 25, "max_new_tokens": 1}):
            with pytest.raises(UserError, match=r"`max_length` \+ `max_new_tokens` .* 24 positions"):
                check_positions(config, False, lengths)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        check_positions(tf.LlamaConfig(**SIZES), False, {"max_length": 16, "max_new_tokens": 9})
    assert "`max_length` + `max_new_tokens`" in caplog.text and "24" in caplog.text
