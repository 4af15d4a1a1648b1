import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM
from trl import ModelConfig, SFTConfig

from utils.adapters import count_parameters, get_lora_config
from utils.arguments import UserError, parse_recipe
from utils.chat_tokenizer import load_chat_tokenizer
from utils.modeling import architecture, get_quantization_config, load_base_model, load_tokenizer
from utils.seq2seq import load_seq2seq_config

CPU = torch.device("cpu")


def config(folder, **values) -> ModelConfig:
    return ModelConfig(
        **{"model_name_or_path": str(folder), "dtype": "float32", "use_peft": True, "lora_r": 8} | values
    )


def load(folder, **values):
    args = config(folder, **values)
    return load_base_model(args, AutoModelForCausalLM, get_quantization_config(args, CPU), CPU), args


def lora(folder, **values):
    model, args = load(folder, **values)
    return get_peft_model(model, get_lora_config(args, model, "CAUSAL_LM"))


def refused(folder, **values) -> str:
    model, args = load(folder, **values)
    with pytest.raises(UserError) as caught:
        get_lora_config(args, model, "CAUSAL_LM")
    return str(caught.value)


# ----- LoRA targets


def test_a_target_that_matches_nothing_is_refused_though_another_matches(tiny_llama):
    error = refused(tiny_llama, lora_target_modules=["q_proj", "v_porj"])
    assert "`lora_target_modules`: `v_porj`" in error and "did you mean `v_proj`?" in error
    assert "gate_proj" in error  # what there is


def test_the_targets_of_another_architecture_are_refused(tiny_phi, tiny_phi3):
    assert "`o_proj` matches no layer of PhiForCausalLM" in refused(tiny_phi, lora_target_modules=["q_proj", "o_proj"])
    assert "`q_proj` matches no layer of Phi3ForCausalLM" in refused(tiny_phi3, lora_target_modules=["q_proj"])


def test_a_module_to_save_that_is_not_there_is_refused(tiny_llama):
    error = refused(tiny_llama, lora_target_modules=["q_proj"], lora_modules_to_save=["lm_haed"])
    assert "`lora_modules_to_save`: `lm_haed`" in error and "did you mean `lm_head`?" in error


def test_no_target_is_refused(tiny_llama):
    assert "`lora_target_modules`" in refused(tiny_llama, lora_target_modules=None)


def test_the_weights_of_experts_are_targets_by_their_names():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(**sizes, vocab_size=50, num_key_value_heads=1, num_local_experts=2)
    values = {"model_name_or_path": "m", "use_peft": True, "lora_r": 2, "lora_dropout": 0.0}
    args = ModelConfig(**values, lora_target_parameters=["experts.gate_up_proj"])
    base = MixtralForCausalLM(config)
    model = get_peft_model(base, get_lora_config(args, base, "CAUSAL_LM"))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained and all("experts.lora_" in name for name in trained)
    args.lora_target_parameters = ["experts.gate_upproj"]
    with pytest.raises(UserError, match="`lora_target_parameters`: `experts.gate_upproj`"):
        get_lora_config(args, base, "CAUSAL_LM")


def test_without_lora_there_is_no_configuration(tiny_llama):
    model, args = load(tiny_llama, use_peft=False)
    assert get_lora_config(args, model, "CAUSAL_LM") is None


def test_all_linear_takes_every_linear_layer_but_the_head(tiny_llama):
    model = lora(tiny_llama, lora_target_modules=["all-linear"])
    adapted = {name.split(".")[-4] for name, _ in model.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_single_target_is_a_target(tiny_llama):
    counts = count_parameters(lora(tiny_llama, lora_target_modules=["q_proj"]))
    assert counts["lora_parameters"] == 2 * 8 * (64 + 64)


def test_the_values_of_the_recipe_reach_the_adapter(tiny_llama):
    model, args = load(tiny_llama, lora_target_modules=["q_proj"], lora_alpha=24, lora_dropout=0.25, use_rslora=True)
    made = get_lora_config(args, model, "CAUSAL_LM")
    assert (made.r, made.lora_alpha, made.lora_dropout, made.use_rslora, made.bias) == (8, 24, 0.25, True, "none")


@pytest.mark.parametrize(
    ("targets", "values"),
    [
        (["c_attn"], {}),
        (["c_attn", "c_proj", "c_fc"], {"use_dora": True}),
        (["all-linear"], {"load_in_4bit": True, "dtype": "bfloat16"}),
    ],
)
def test_the_layers_of_gpt_2_are_trained_merged_and_loaded_again(tiny_gpt2, targets, values, tmp_path):
    model = lora(tiny_gpt2, lora_target_modules=targets, **values).train()
    batch = {"input_ids": torch.arange(1, 13).view(2, 6)}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    before = model(**batch).logits
    for _ in range(3):
        model(**batch, labels=batch["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tuned = model.eval()(**batch).logits
    assert not torch.allclose(tuned, before)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(load(tiny_gpt2, **values)[0], tmp_path).eval()
    near = {"atol": 0.05, "rtol": 0.05} if values.get("load_in_4bit") else {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(again(**batch).logits, tuned, **near)
    if not values.get("load_in_4bit"):  # which rounds merged weights
        torch.testing.assert_close(again.merge_and_unload()(**batch).logits, tuned, **near)


# ----- Counts, by hand


def test_parameters_are_counted_as_by_hand(tiny_llama):
    dense = sum(p.numel() for p in load(tiny_llama)[0].parameters())
    vocabulary = len(AutoTokenizer.from_pretrained(tiny_llama))
    # embedding and head, 2 layers of attention (64 -> 64, 32, 32, 64), MLP (3 times 64 x 128), norms
    layer = 64 * (64 + 32 + 32 + 64) + 3 * 64 * 128 + 2 * 64
    assert dense == 2 * vocabulary * 64 + 2 * layer + 64
    adapter = 2 * 8 * ((64 + 64) + (64 + 32))  # q_proj and v_proj in 2 layers, r * (in + out)
    assert count_parameters(lora(tiny_llama, lora_target_modules=["q_proj", "v_proj"])) == {
        "trainable_parameters": adapter,
        "lora_parameters": adapter,
        "saved_module_parameters": 0,
        "total_parameters": dense + adapter,
    }


def test_saved_modules_are_counted_apart(tiny_llama):
    counts = count_parameters(
        lora(tiny_llama, lora_target_modules=["q_proj", "o_proj"], lora_modules_to_save=["lm_head"])
    )
    vocabulary = len(AutoTokenizer.from_pretrained(tiny_llama))
    assert counts["lora_parameters"] == 2 * 2 * 8 * (64 + 64)
    assert counts["saved_module_parameters"] == vocabulary * 64
    assert counts["trainable_parameters"] == counts["lora_parameters"] + counts["saved_module_parameters"]


def test_full_fine_tuning_trains_every_parameter(tiny_phi):
    counts = count_parameters(load(tiny_phi)[0])
    assert counts["trainable_parameters"] == counts["total_parameters"]
    assert counts["lora_parameters"] == counts["saved_module_parameters"] == 0


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_quantized_weights_count_as_unquantized(tiny_llama, bits):
    values = {"lora_target_modules": ["q_proj", "v_proj"], "dtype": "bfloat16"}
    assert count_parameters(lora(tiny_llama, **values, **{bits: True})) == count_parameters(lora(tiny_llama, **values))


# ----- Quantization and loading


def test_both_bit_widths_at_once_are_refused():
    with pytest.raises(UserError, match="8 bit and 4 bit"):
        parse_recipe((ModelConfig,), ["--load_in_4bit", "--load_in_8bit"])


@pytest.mark.parametrize("dtype", ["float16", "auto"])
def test_4_bit_weights_compute_in_bfloat16_or_float32_on_a_cpu(tiny_llama, dtype):
    with pytest.raises(UserError, match="`dtype` is .* on this cpu need bfloat16 or float32"):
        get_quantization_config(config(tiny_llama, load_in_4bit=True, dtype=dtype), CPU)


def test_4_bit_weights_are_nf4_and_compute_in_the_dtype_of_the_recipe(tiny_llama):
    args = config(tiny_llama, load_in_4bit=True, dtype="bfloat16", use_bnb_nested_quant=True)
    made = get_quantization_config(args, CPU, ["score"])
    assert (made.bnb_4bit_quant_type, made.bnb_4bit_use_double_quant) == ("nf4", True)
    assert made.bnb_4bit_compute_dtype is torch.bfloat16 and made.llm_int8_skip_modules == ["score"]
    assert get_quantization_config(config(tiny_llama), CPU) is None


def test_4_bit_loading_quantizes_the_layers_and_not_the_head(tiny_llama):
    model, _ = load(tiny_llama, load_in_4bit=True, dtype="bfloat16")
    assert type(model.model.layers[0].self_attn.q_proj).__name__ == "Linear4bit"
    assert type(model.lm_head) is torch.nn.Linear and model.lm_head.weight.dtype is torch.bfloat16


def test_the_dtype_of_the_recipe_is_that_of_the_weights(tiny_llama):
    assert {p.dtype for p in load(tiny_llama, dtype="bfloat16")[0].parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["/no/such/model", "./nothing/here", "~/no/such/folder", "deep/er/than/hub"])
@pytest.mark.parametrize("values", [{}, {"load_in_4bit": True, "dtype": "bfloat16"}])
def test_a_folder_that_does_not_exist_is_named(name, values):
    for loads in (lambda args: load_tokenizer(args), lambda args: load(name, **values)):
        with pytest.raises(UserError, match="`model_name_or_path`: there is no folder"):
            loads(config(name, **values))


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="`model_name_or_path` .* cannot be loaded"):
        load(tmp_path)


def test_no_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="`model_name_or_path` is not set"):
        load_tokenizer(ModelConfig())


def test_a_missing_pad_token_becomes_the_end_token_and_another_is_kept(tiny_phi, tiny_llama):
    assert load_tokenizer(config(tiny_phi)).pad_token == "<|endoftext|>"
    tokenizer = load_tokenizer(config(tiny_llama))
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")


# ----- Models of another kind


def test_an_architecture_is_told_from_its_configuration():
    found = {
        kind: architecture(AutoConfig.for_model(kind))
        for kind in ("llama", "qwen3", "gemma3", "t5", "bart", "bert", "modernbert", "qwen2_5_vl", "llava", "vit",
                     "clip", "whisper", "wav2vec2")
    }  # fmt: skip
    assert found == {
        "llama": "decoder", "qwen3": "decoder", "gemma3": "decoder", "t5": "encoder-decoder",
        "bart": "encoder-decoder", "bert": "encoder", "modernbert": "encoder", "qwen2_5_vl": None, "llava": None,
        "vit": None, "clip": None, "whisper": None, "wav2vec2": None,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "vit", "whisper"])
def test_a_model_of_images_or_sound_is_refused_in_one_line_by_every_script(kind, tmp_path):
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    args = ModelConfig(model_name_or_path=str(tmp_path))
    training = SFTConfig(output_dir="out", use_cpu=True, bf16=False, report_to="none")
    ways = (load_tokenizer, lambda args: load_seq2seq_config(args, False), lambda a: load_chat_tokenizer(a, training))
    for way in ways:
        with pytest.raises(UserError, match=f"`model_name_or_path`.*{kind}") as caught:
            way(args)
        assert len(str(caught.value)) < 300


def test_a_model_of_another_task_is_refused_with_the_script_for_it(tiny_bert, tiny_t5, tiny_llama):
    training = SFTConfig(output_dir="out", use_cpu=True, bf16=False, report_to="none")
    for folder, script in ((tiny_bert, "run_classification.py"), (tiny_t5, "run_summarization.py")):
        with pytest.raises(UserError, match=script):
            load_chat_tokenizer(ModelConfig(model_name_or_path=str(folder)), training)
