"""Files that lack weights are refused: libraries would draw them at random, and answer."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PegasusConfig, PegasusForConditionalGeneration
from trl import ModelConfig

from utils.arguments import UserError
from utils.encoding import EncoderArguments, load_classifier
from utils.modeling import load_base_model
from utils.weights import check_weights, load_adapter

CPU = torch.device("cpu")
NO = {"missing_keys": set(), "mismatched_keys": set()}


def without(source: Path, folder: Path, key: str, name: str = "model.safetensors") -> Path:
    """Copy a model without one tensor."""
    shutil.copytree(source, folder)
    weights = load_file(folder / name)
    del weights[next(own for own in weights if key in own)]
    save_file(weights, folder / name, metadata={"format": "pt"})
    return folder


def arguments(folder: Path, **values) -> ModelConfig:
    return ModelConfig(model_name_or_path=str(folder), dtype="float32", **values)


@pytest.mark.parametrize(
    "model, auto_class, key",
    [
        ("tiny_llama", AutoModelForCausalLM, "layers.1.mlp.up_proj"),
        ("tiny_phi", AutoModelForCausalLM, "final_layernorm"),
        ("tiny_gpt2", AutoModelForCausalLM, "h.0.attn.c_attn"),
        ("tiny_t5", AutoModelForSeq2SeqLM, "decoder.block.1"),
    ],
)
def test_a_base_model_that_lacks_a_layer_is_refused(model, auto_class, key, request, tmp_path):
    folder = without(request.getfixturevalue(model), tmp_path / "model", key)
    with pytest.raises(UserError, match=r"`model_name_or_path`.*lacks 1 of") as caught:
        load_base_model(arguments(folder), auto_class, None, CPU)
    assert key in str(caught.value)


def test_layers_of_other_sizes_are_refused_in_one_line(tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 2 * config["intermediate_size"]}))
    with pytest.raises(UserError, match="other sizes.*mlp"):
        load_base_model(arguments(folder), AutoModelForCausalLM, None, CPU)


def test_positions_that_are_computed_may_be_missing(tmp_path):
    """As in the published files of PEGASUS."""
    config = PegasusConfig(
        d_model=16, vocab_size=40, max_position_embeddings=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    whole = PegasusForConditionalGeneration(config)
    whole.save_pretrained(tmp_path / "whole")
    folder = without(tmp_path / "whole", tmp_path / "a", "encoder.embed_positions")
    folder = without(folder, tmp_path / "b", "decoder.embed_positions")
    model = load_base_model(arguments(folder), AutoModelForSeq2SeqLM, None, CPU)
    assert torch.equal(model.model.encoder.embed_positions.weight, whole.model.encoder.embed_positions.weight)


def test_an_encoder_without_its_pooler_needs_mean_pooling(tiny_bert, tmp_path):
    """A pooler that is drawn at random is not saved with an adapter, so another one would serve."""
    folder = without(without(tiny_bert, tmp_path / "a", "pooler.dense.weight"), tmp_path / "b", "pooler.dense.bias")
    given = arguments(folder), EncoderArguments(max_length=32), CPU, ["a", "b"], ["classifier"]
    with pytest.raises(UserError, match=r"lacks 2 .*pooler.*`pooling: mean`"):
        load_classifier(*given)
    given[1].pooling = "mean"
    assert load_classifier(*given).bert.pooler is None
    with pytest.raises(UserError, match="lacks 1 "):
        broken = arguments(without(tiny_bert, tmp_path / "c", "layer.0.output.dense.weight"))
        load_classifier(broken, *given[1:])


def test_an_adapter_that_lacks_a_layer_is_refused(tiny_llama, tmp_path):
    def base() -> torch.nn.Module:
        return AutoModelForCausalLM.from_pretrained(tiny_llama)

    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(base(), lora).save_pretrained(tmp_path / "whole")
    assert isinstance(load_adapter(base(), tmp_path / "whole", is_trainable=True), PeftModel)
    folder = without(tmp_path / "whole", tmp_path / "less", "layers.1", "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"lacks weights.*layers\.1\.self_attn\.q_proj"):
        load_adapter(base(), folder)


def test_only_modules_that_are_named_may_be_missing():
    def check(new: list[str], **keys: set) -> None:
        check_weights("model", "x", torch.nn.Module(), NO | keys, new)

    check([])
    check(["classifier", "pooler"], missing_keys={"classifier.out.weight", "bert.pooler.bias"})
    check(["score"], mismatched_keys={("score.weight", (2, 8), (3, 8))})
    for key in ("bert.classifier_norm.weight", "encoder.poolers.weight"):
        with pytest.raises(UserError, match="`model` x lacks 1 "):
            check(["classifier", "pooler"], missing_keys={key})
