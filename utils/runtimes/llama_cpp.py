"""A causal language model in llama.cpp, which answers prompts one at a time."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from utils.arguments import UserError

FILE = "model.gguf"
READ = {"max_new_tokens", "do_sample", "temperature", "repetition_penalty", "length_penalty"}  # the last is of beams


class Answer(NamedTuple):
    """An answer of llama.cpp.

    text: without special tokens.
    finished: whether the model ended it by itself.
    probability: geometric mean of the probabilities of its tokens.
    prompt_tokens: how many tokens the prompt had.
    """

    text: str
    finished: bool
    probability: float
    prompt_tokens: int


class LlamaCpp(nn.Module):
    """Holds a GGUF file in llama.cpp on the CPU, with as many threads as PyTorch would use.

    Args:
        path: of the file.
        config: of the model that it was made of.
        context: tokens of a prompt and its answer.
    """

    def __init__(self, path: Path, config: PreTrainedConfig, context: int) -> None:
        import xllamacpp  # imported here: only exports need it

        super().__init__()
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.warmup = context, 1, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
        params.verbosity = -1
        self.server: Any = xllamacpp.Server(params)
        self.config, self.device, self.dtype, self.context = config, torch.device("cpu"), torch.float32, context

    def answer(
        self,
        prompt: list[int] | str,
        generation: Mapping[str, Any],
        on_text: Callable[[str], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """Answer a prompt.

        Args:
            prompt: token ids, or a text in which llama.cpp reads control tokens.
            generation: `max_new_tokens`, and optionally `do_sample`, `temperature` and `repetition_penalty`.
                Other settings are refused unless they are switched off, as `num_beams: 1` is.
            on_text: called with the answer so far whenever it grows.
            stopped: whether the answer is of no more use, asked after each token.
        """
        if unknown := [key for key, value in generation.items() if key not in READ and value not in (None, 0, 1)]:
            named = ", ".join(f"`{key}`" for key in unknown)
            raise UserError(f"{named} cannot be set for an export to llama.cpp: leave it out, or use the run itself.")
        samples = generation.get("do_sample", False)
        request = {
            "prompt": prompt, "max_tokens": generation["max_new_tokens"], "stream": True, "logprobs": 1,
            "temperature": generation.get("temperature", 1.0) if samples else 0.0, "top_k": 0 if samples else 1,
            "top_p": 1.0, "min_p": 0.0, "repeat_penalty": generation.get("repetition_penalty", 1.0),
            "repeat_last_n": self.context, "cache_prompt": False, "stream_options": {"include_usage": True},
        }  # fmt: skip
        text, finish, log_p, read, fault = "", None, list[float](), 0, ""

        def take(chunk: dict[str, Any]) -> bool:
            nonlocal text, finish, read, fault
            if "error" in chunk:  # raised below: an exception in here would be lost
                fault = str(chunk["error"].get("message", chunk["error"]))
            read = (chunk.get("usage") or {}).get("prompt_tokens", read)
            for choice in chunk.get("choices", []):
                text += choice.get("text") or ""
                log_p.extend(token["logprob"] for token in (choice.get("logprobs") or {}).get("content") or [])
                finish = choice.get("finish_reason") or finish
                if on_text and choice.get("text"):
                    on_text(text.strip())
            return stopped()

        self.server.handle_completions(request, take)
        if fault:
            raise UserError(f"llama.cpp cannot answer: {fault}.")
        mean = sum(log_p) / len(log_p) if log_p else float("-inf")
        return Answer(text.strip(), finish == "stop", float(torch.tensor(mean).exp()), read)


def load_llama_cpp(folder: Path, task: Mapping[str, Any]) -> LlamaCpp:
    """Load the model in the folder of an export.

    Raises:
        UserError: xllamacpp is not installed, or llama.cpp cannot read the file.
    """
    if find_spec("xllamacpp") is None:
        raise UserError(f"`model` {folder} needs xllamacpp, which is not installed: run `make install-export`.")
    context = task["max_length"] + task["generation"]["max_new_tokens"]
    try:
        return LlamaCpp(folder / FILE, AutoConfig.from_pretrained(folder), context)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"`model` {folder}: llama.cpp cannot load {FILE}: choose another export.") from error
