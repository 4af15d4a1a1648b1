"""An encoder-decoder made of an encoder's weights, where no pretrained one is at hand.

BERT and BART normalise after each part of a layer, so that BERT's layers fit into BART's as they are: encoder and
decoder start from them (Rothe et al. 2020, Leveraging pre-trained checkpoints for sequence generation tasks). What
such a decoder learns slowly is to look at its source: after 3,200 definitions it gave all of them the same name. So
its last attention to the source starts as one that shows the output which tokens it looks at.
"""

from collections.abc import Sequence

import torch
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

COPY_WEIGHT = 0.8  # size of what is copied, beside the decoder's own state
RIDGE = 1e-3  # of the least squares, a share of the number of tokens
BATCH_SIZE = 64


def seq2seq_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """BERT's tokenizer with [SEP] at the end of a text and no [CLS] at its beginning, which a decoder would have to
    write first."""
    backend = tokenizer.backend_tokenizer
    ends = [(tokenizer.sep_token, tokenizer.sep_token_id)]
    backend.post_processor = TemplateProcessing(
        single=f"$A {tokenizer.sep_token}",
        pair=f"$A {tokenizer.sep_token} $B {tokenizer.sep_token}",
        special_tokens=ends,
    )
    backend.no_truncation()
    backend.no_padding()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=tokenizer.pad_token,
        unk_token=tokenizer.unk_token,
        mask_token=tokenizer.mask_token,
        bos_token=tokenizer.cls_token,
        eos_token=tokenizer.sep_token,
        model_max_length=tokenizer.model_max_length,
    )


def bart_from_bert(
    bert: BertModel, tokenizer: PreTrainedTokenizerBase, layers: int, texts: Sequence[str]
) -> BartForConditionalGeneration:
    """Make an encoder-decoder whose decoder sees from the first step on which tokens it looks at.

    Encoder and decoder take the lower layers of `bert`, the attention to the source takes the weights of the layer's
    own attention, and the output takes the word embeddings. Nothing is drawn at random. `start_to_copy` then changes
    the last layer.

    Args:
        bert: in float32; with `hidden_act` gelu and absolute positions.
        tokenizer: from `seq2seq_tokenizer`.
        layers: how many of the encoder's, and of the decoder's.
        texts: to fit the copying on; a thousand of ten words are enough.
    """
    source = bert.config
    config = BartConfig(
        vocab_size=source.vocab_size,
        max_position_embeddings=source.max_position_embeddings,
        d_model=source.hidden_size,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=source.num_attention_heads,
        decoder_attention_heads=source.num_attention_heads,
        encoder_ffn_dim=source.intermediate_size,
        decoder_ffn_dim=source.intermediate_size,
        activation_function=source.hidden_act,
        dropout=0.0,  # drawing random masks takes a third of the time on a CPU
        attention_dropout=0.0,
        activation_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,
    )
    model = BartForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.model.shared.weight.copy_(bert.embeddings.word_embeddings.weight)  # the output's too: they are tied
        for side in (model.model.encoder, model.model.decoder):
            _copy_layers(bert, side)
        start_to_copy(model, tokenizer, texts)
    return model


def _copy_layers(bert: BertModel, side: nn.Module) -> None:
    """Copy position embeddings and layers into BART's encoder or decoder."""
    embeddings = bert.embeddings
    positions = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
    side.embed_positions.weight.zero_()[2:] = positions  # BART's first two rows are not used
    side.layernorm_embedding.load_state_dict(embeddings.LayerNorm.state_dict())
    for old, new in zip(bert.encoder.layer, side.layers, strict=False):
        attentions = [(new.self_attn, new.self_attn_layer_norm)]
        if hasattr(new, "encoder_attn"):
            attentions.append((new.encoder_attn, new.encoder_attn_layer_norm))
        for attention, norm in attentions:
            attention.q_proj.load_state_dict(old.attention.self.query.state_dict())
            attention.k_proj.load_state_dict(old.attention.self.key.state_dict())
            attention.v_proj.load_state_dict(old.attention.self.value.state_dict())
            attention.out_proj.load_state_dict(old.attention.output.dense.state_dict())
            norm.load_state_dict(old.attention.output.LayerNorm.state_dict())
        new.fc1.load_state_dict(old.intermediate.dense.state_dict())
        new.fc2.load_state_dict(old.output.dense.state_dict())
        new.final_layer_norm.load_state_dict(old.output.LayerNorm.state_dict())


def start_to_copy(
    model: BartForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> None:
    """Make the decoder's last attention to the source, in place, one that adds the embeddings of the tokens that it
    looks at to the decoder's state: the output compares states with embeddings, so it writes those tokens.

    The encoder's states are mapped back to the tokens' embeddings by least squares. The last norm is set to 1 and 0,
    so that logits are wide enough for a certain choice.
    """
    states, embedded = [], []
    for start in range(0, len(texts), BATCH_SIZE):
        batch = tokenizer(list(texts[start : start + BATCH_SIZE]), padding=True, truncation=True, return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        states.append(model.model.encoder(ids, attention_mask=mask).last_hidden_state[mask.bool()])
        embedded.append(model.model.shared(ids)[mask.bool()])
    embeddings = torch.cat(embedded)
    embeddings -= embeddings.mean(0)  # what all tokens share tells none from another
    last = model.model.decoder.layers[-1]
    attention = last.encoder_attn
    weight, bias = least_squares(torch.cat(states), embeddings)
    attention.v_proj.weight.copy_(weight)
    attention.v_proj.bias.copy_(bias)
    # a state leaves its norm with the norm of the norm's weights
    scale = COPY_WEIGHT * last.self_attn_layer_norm.weight.norm() / embeddings.norm(dim=1).mean()
    attention.out_proj.weight.copy_(scale * torch.eye(len(bias)))
    attention.out_proj.bias.zero_()
    last.final_layer_norm.reset_parameters()


def least_squares(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [d_out, d_in] and bias [d_out] of the linear layer that maps inputs [n, d_in] to targets [n, d_out], with
    a small ridge penalty (Hoerl and Kennard 1970)."""
    x, y = inputs - inputs.mean(0), targets - targets.mean(0)
    penalty = RIDGE * len(x) * torch.eye(x.shape[1])
    weight = torch.linalg.solve(x.T @ x + penalty, x.T @ y).T
    return weight, targets.mean(0) - weight @ inputs.mean(0)
