"""Build an encoder-decoder from the weights of an encoder, if no pretrained one is available.

BERT and BART both normalize after each sublayer, so BERT's layers fit into BART unchanged, and initialize encoder
and decoder (Rothe et al. 2020, Leveraging pre-trained checkpoints for sequence generation tasks). Such a decoder
learns slowly to attend to its source: after 3,200 definitions it gave all of them the same name. Its last
cross-attention therefore starts as one that shows the output layer which tokens it attends to.
"""

from collections.abc import Sequence

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.bart.modeling_bart import BartDecoder, BartEncoder

COPY_WEIGHT = 0.8  # size of the copied embedding relative to the decoder's own state
RIDGE = 1e-3  # ridge penalty of the least squares, relative to the number of tokens
BATCH_SIZE = 64
# Module of a BART layer -> module of a BERT layer
ATTENTION = {
    "q_proj": "attention.self.query",
    "k_proj": "attention.self.key",
    "v_proj": "attention.self.value",
    "out_proj": "attention.output.dense",
}
FEED_FORWARD = {"fc1": "intermediate.dense", "fc2": "output.dense", "final_layer_norm": "output.LayerNorm"}


def seq2seq_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """Return BERT's tokenizer with [SEP] at the end of a text but no [CLS] at its start, which a decoder would have
    to generate first."""
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
    """Build an encoder-decoder whose decoder can copy from the first step on.

    Encoder and decoder take the lower layers of `bert`, cross-attention takes the weights of the layer's
    self-attention, and the output layer takes the word embeddings. Nothing is initialized at random.
    `start_to_copy` then changes the last layer.

    Args:
        bert: model in float32, with `hidden_act` gelu and absolute positions.
        tokenizer: from `seq2seq_tokenizer`.
        layers: number of encoder layers, and of decoder layers.
        texts: texts to fit copying on; a thousand of ten words suffice.
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
        dropout=0.0,  # random masks take a third of the time on a CPU
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
        model.model.shared.weight.copy_(bert.embeddings.word_embeddings.weight)  # also sets the tied output layer
        for side in (model.model.encoder, model.model.decoder):
            _copy_layers(bert, side)
        start_to_copy(model, tokenizer, texts)
    return model


def _copy_layers(bert: BertModel, side: BartEncoder | BartDecoder) -> None:
    """Copy position embeddings and layers into BART's encoder or decoder."""
    embeddings = bert.embeddings
    positions = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
    side.embed_positions.weight.zero_()[2:] = positions  # BART does not use the first two rows
    side.layernorm_embedding.load_state_dict(embeddings.LayerNorm.state_dict())
    for old, new in zip(bert.encoder.layer, side.layers, strict=False):
        parts = dict(FEED_FORWARD)
        for attention in ("self_attn", "encoder_attn") if isinstance(side, BartDecoder) else ("self_attn",):
            parts |= {f"{attention}.{name}": source for name, source in ATTENTION.items()}
            parts[f"{attention}_layer_norm"] = "attention.output.LayerNorm"
        for name, source in parts.items():
            new.get_submodule(name).load_state_dict(old.get_submodule(source).state_dict())


def start_to_copy(
    model: BartForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> None:
    """Change the decoder's last cross-attention in place so that it adds the embeddings of the attended tokens to
    the decoder's state. The output layer compares states with embeddings, so it predicts these tokens.

    Encoder states are mapped back to token embeddings by least squares. The last norm is reset to weight 1 and bias
    0, so that logits are large enough for a confident prediction.
    """
    states, embedded = [], []
    for start in range(0, len(texts), BATCH_SIZE):
        batch = tokenizer(list(texts[start : start + BATCH_SIZE]), padding=True, truncation=True, return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        states.append(model.model.encoder(ids, attention_mask=mask).last_hidden_state[mask.bool()])
        embedded.append(model.model.shared(ids)[mask.bool()])
    embeddings = torch.cat(embedded)
    embeddings -= embeddings.mean(0)  # the common part does not distinguish tokens
    last = model.model.decoder.layers[-1]
    attention = last.encoder_attn
    weight, bias = least_squares(torch.cat(states), embeddings)
    attention.v_proj.weight.copy_(weight)
    attention.v_proj.bias.copy_(bias)
    # The size of a normalized state is that of the norm's weights
    scale = COPY_WEIGHT * last.self_attn_layer_norm.weight.norm() / embeddings.norm(dim=1).mean()
    attention.out_proj.weight.copy_(scale * torch.eye(len(bias)))
    attention.out_proj.bias.zero_()
    last.final_layer_norm.reset_parameters()


def least_squares(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight [d_out, d_in] and bias [d_out] of the linear layer from inputs [n, d_in] to targets [n, d_out],
    fitted with a small ridge penalty (Hoerl and Kennard 1970)."""
    x, y = inputs - inputs.mean(0), targets - targets.mean(0)
    penalty = RIDGE * len(x) * torch.eye(x.shape[1])
    weight = torch.linalg.solve(x.T @ x + penalty, x.T @ y).T
    return weight, targets.mean(0) - weight @ inputs.mean(0)
