"""Train the demo model: a small Llama-architecture code model that ships with Twinfer.

The corpus is the Python standard library of the interpreter that runs this script, so nothing is downloaded.
The script goes through these steps:

1. collect the source files that parse, and hold out about 2 % of them by a hash of their path;
2. train a byte-level BPE tokenizer on the training files and encode them;
3. train the decoder, with Muon for the weight matrices and AdamW for the embedding and the norms;
   the learning rate and the window length follow the share of the budget that is used (see `Schedule`);
4. write the weights, the tokenizer and the configuration in Hugging Face format.

Run it again with the same `--work` folder after an interruption and it continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from demo_model import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    Decoder,
    Ids,
    ModelConfig,
    SourceFile,
    encode_files,
    held_out_bits,
    read_corpus,
    split_corpus,
)

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"

# Runs of spaces and single newlines are tokens of their own, so that a prompt may end after either of them and the
# continuation is still cut as it was in training. A word takes one character in front of it along: " in", ".append".
PRE_TOKEN_PATTERN = r" {2,}|\r?\n|[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s"

CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- elif message['content'] -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
)


# The tokenizer.


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer: every byte is in its alphabet, so any text comes back as it went in."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKEN_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=32,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


# Training.


@dataclass(frozen=True, slots=True)
class Schedule:
    """What depends on progress, the used share of the budget in [0, 1].

    The learning rate rises, stays, and falls linearly to zero. Windows are short first, because attention over short
    windows is cheaper, and reach the full context at the end, so that no position stays untrained.
    """

    warmup: float = 0.01
    decay_from: float = 0.45
    windows: tuple[tuple[float, int], ...] = ((0.8, 512), (0.92, 2048), (1.0, 4096))

    def rate(self, progress: float) -> float:
        """Factor on the learning rates."""
        if progress < self.warmup:
            return progress / self.warmup
        return min(1.0, max(0.0, (1.0 - progress) / (1.0 - self.decay_from)))

    def window(self, progress: float) -> int:
        """Length of the training windows in tokens."""
        return next((length for until, length in self.windows if progress < until), self.windows[-1][1])


@dataclass(slots=True)
class Progress:
    """How far a run is; it survives in the checkpoint."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line sets."""

    out: Path
    work: Path
    minutes: float
    steps: int
    device: str
    threads: int
    seed: int
    batch_tokens: int
    matrix_rate: float
    adam_rate: float
    compile: bool
    every: float
    model: ModelConfig = field(default_factory=ModelConfig)

    def used(self, progress: Progress) -> float:
        """Used share of the budget, in [0, 1]: steps when they are given, time otherwise."""
        share = progress.steps / self.steps if self.steps else progress.seconds / (60 * self.minutes)
        return min(1.0, share)


def make_optimizers(model: Decoder, options: Options) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=options.matrix_rate, momentum=0.95, weight_decay=0.02),
        torch.optim.AdamW(others, lr=options.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return optimizers


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: handing large tensors back to the system at every step costs a third."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
            libc.mallopt(parameter, value)


class Trainer:
    """One run: the model, its optimizers, the data and the checkpoint."""

    def __init__(self, options: Options, stream: Ids, held_out: list[Ids], held_out_bytes: int) -> None:
        torch.manual_seed(options.seed)
        self.options, self.stream = options, stream
        self.held_out, self.held_out_bytes = held_out, held_out_bytes
        self.model = Decoder(options.model).to(options.device)
        self.optimizers = make_optimizers(self.model, options)
        self.schedule, self.progress = Schedule(), Progress()
        self.checkpoint = options.work / "checkpoint.pt"
        self.loss: Callable[[Tensor, Tensor], Tensor] = self.model.loss
        if options.compile:
            self.loss = torch.compile(self.model.loss, dynamic=False)

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is complete."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        torch.save(state, self.checkpoint.with_suffix(".new"))
        self.checkpoint.with_suffix(".new").replace(self.checkpoint)

    def resume(self) -> None:
        """Continue from the checkpoint if there is one."""
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location=self.options.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])
        print(f"resumed at step {self.progress.steps}", flush=True)

    def batch(self, window: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of this step, [batch, window] each: windows at random places of the stream."""
        random = np.random.default_rng([self.options.seed, self.progress.steps])
        starts = random.integers(0, len(self.stream) - window, size=self.options.batch_tokens // window)
        rows = np.stack([self.stream[start : start + window + 1] for start in starts]).astype(np.int64)
        ids = torch.from_numpy(rows).to(self.options.device)
        return ids[:, :-1], ids[:, 1:]

    def step(self, used: float) -> Tensor:
        """One optimizer step; returns the loss in nats per token."""
        inputs, targets = self.batch(self.schedule.window(used))
        with torch.autocast(self.options.device, torch.bfloat16):
            loss = self.loss(inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * self.schedule.rate(used)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def report(self, losses: list[float], rate: float) -> None:
        """Print one progress line."""
        with torch.autocast(self.options.device, torch.bfloat16):
            bits = held_out_bits(self.model, self.held_out, self.held_out_bytes, window=512, stride=384)
        used = self.options.used(self.progress)
        print(
            f"step {self.progress.steps:6d}  {100 * used:5.1f} %  {self.progress.tokens / 1e6:.1f} M tokens  "
            f"loss {np.mean(losses):.4f}  held-out {bits:.4f} bits/byte  {rate:,.0f} tok/s  "
            f"window {self.schedule.window(used)}",
            flush=True,
        )

    def run(self) -> None:
        """Train until the budget is used; report and save every `options.every` seconds."""
        losses: list[float] = []
        mark_seconds, mark_tokens = self.progress.seconds, self.progress.tokens
        origin = time.monotonic() - self.progress.seconds
        while (used := self.options.used(self.progress)) < 1.0:
            losses.append(self.step(used).item())
            self.progress.steps += 1
            self.progress.tokens += self.options.batch_tokens
            self.progress.seconds = time.monotonic() - origin
            if self.progress.seconds - mark_seconds >= self.options.every:
                rate = (self.progress.tokens - mark_tokens) / (self.progress.seconds - mark_seconds)
                self.report(losses, rate)
                self.save()
                losses = []
                self.progress.seconds = time.monotonic() - origin
                mark_seconds, mark_tokens = self.progress.seconds, self.progress.tokens
        self.save()


# Export in Hugging Face format.


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def export(out: Path, model: Decoder, tokenizer: Tokenizer) -> None:
    """Write weights in bf16, tokenizer and configuration, as `transformers` reads them."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.to("cpu", torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # `save_file` leaves it readable by its owner only
    tokenizer.save(str(out / "tokenizer.json"))
    sizes = asdict(model.config)
    write_json(
        out / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **sizes,
            "head_dim": model.config.head_dim,
            "rope_parameters": {"rope_type": "default", "rope_theta": model.config.rope_theta},
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "mlp_bias": False,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
            "bos_token_id": BOS_ID,
            "eos_token_id": EOS_ID,
            "pad_token_id": PAD_ID,
            "dtype": "bfloat16",
        },
    )
    write_json(out / "generation_config.json", {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID})
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "add_bos_token": False,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model.config.max_position_embeddings,
            "chat_template": CHAT_TEMPLATE,
        },
    )


# The command.


def parse_options(arguments: list[str]) -> Options:
    """The command line; the defaults are those of the shipped model."""
    parser = argparse.ArgumentParser(description="Train Twinfer's demo model on the Python standard library.")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for the model")
    parser.add_argument("--work", type=Path, default=Path("build/demo-work"), help="folder for the checkpoint")
    parser.add_argument("--minutes", type=float, default=80.0, help="training time; the schedule fits itself into it")
    parser.add_argument("--steps", type=int, default=0, help="budget in steps, in place of --minutes")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-tokens", type=int, default=8192, help="tokens in one step")
    parser.add_argument("--matrix-rate", type=float, default=0.02, help="peak learning rate of Muon")
    parser.add_argument("--adam-rate", type=float, default=0.008, help="peak learning rate of AdamW")
    parser.add_argument("--every", type=float, default=180.0, help="seconds between reports and checkpoints")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="use torch.compile")
    values = parser.parse_args(arguments)
    if values.device == "auto":
        values.device = "cuda" if torch.cuda.is_available() else "cpu"
    return Options(**vars(values))


def prepare(work: Path, train: list[SourceFile], vocab_size: int) -> Tokenizer:
    """The tokenizer, trained unless an earlier run has left it in `work`."""
    path = work / "tokenizer.json"
    if not path.exists():
        train_tokenizer((f.text for f in train), vocab_size).save(str(path))
    return Tokenizer.from_file(str(path))


def main(arguments: list[str]) -> None:
    """Train, then export."""
    options = parse_options(arguments)
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    train, held_out = split_corpus(read_corpus(Path(sysconfig.get_path("stdlib"))))
    tokenizer = prepare(options.work, train, options.model.vocab_size)
    stream = np.concatenate(encode_files(tokenizer, train))
    train_bytes = sum(len(f.text.encode()) for f in train)
    print(f"{len(train)} files, {train_bytes:,} bytes, {len(stream):,} tokens; {len(held_out)} held out", flush=True)
    probe = sorted(held_out, key=lambda f: len(f.text))[: len(held_out) * 3 // 4]
    probe_bytes = sum(len(f.text.encode()) for f in probe)
    trainer = Trainer(options, stream, encode_files(tokenizer, probe), probe_bytes)
    trainer.resume()
    export(options.out, trainer.model, tokenizer)
    trainer.run()
    export(options.out, trainer.model, tokenizer)
    write_json(options.out / "training.json", asdict(trainer.progress))


if __name__ == "__main__":
    main(sys.argv[1:])
