"""The demo model and its corpus: what `train_demo_model.py` and `evaluate_demo_model.py` share.

Three parts: the decoder, the corpus (the standard library of the running interpreter, split into training files and
held-out files), and the held-out measure in bits per byte.
"""

from __future__ import annotations

import ast
import hashlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

BOS_ID, EOS_ID, PAD_ID = 0, 1, 2

KV = tuple[Tensor, Tensor]
Cache = list[KV]
Ids = npt.NDArray[np.uint16]


# The decoder. Parameter names are those of `LlamaForCausalLM`, so the state dict is saved as it is.


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of the decoder."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 4096
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


def rope_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, each [max_positions, head_dim]."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.outer(torch.arange(config.max_position_embeddings).float(), config.rope_theta**-exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotary embedding to x [batch, heads, time, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Scale x [..., size] to unit mean square, then by the weight."""
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (scaled * self.weight).to(x.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention, with an optional key-value cache."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.groups = config.num_attention_heads // config.num_key_value_heads
        kv_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: KV | None = None) -> tuple[Tensor, KV]:
        """Mix x [batch, time, hidden] over time; also returns the keys and values seen so far."""
        batch, time_, _ = x.shape
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (p(x).view(batch, time_, -1, self.head_dim).transpose(1, 2) for p in projections)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        mixed = F.scaled_dot_product_attention(
            q, k.repeat_interleave(self.groups, dim=1), v.repeat_interleave(self.groups, dim=1), is_causal=time_ > 1
        )
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, time_, -1)), (k, v)


class MLP(nn.Module):
    """SwiGLU feed-forward layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [batch, time, hidden] to the same shape."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One transformer layer, normalised before each half."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: KV | None = None) -> tuple[Tensor, KV]:
        """Apply both halves to x [batch, time, hidden]."""
        mixed, kv = self.self_attn(self.input_layernorm(x), cos, sin, past)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), kv


class Trunk(nn.Module):
    """Embedding, layers and the last norm: the part that Hugging Face names `model`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """The language model; its output matrix is the embedding."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        cos, sin = rope_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(weight)
            elif weight.ndim == 2:
                nn.init.normal_(weight, std=0.02 if "embed" in name else weight.shape[1] ** -0.5)

    def forward(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits [batch, time, vocab] for ids [batch, time]; with a cache, ids continue it one token at a time."""
        start = cache[0][0].shape[2] if cache else 0
        cos, sin = self.cos[start : start + ids.shape[1]], self.sin[start : start + ids.shape[1]]
        x, grown = self.model.embed_tokens(ids), []
        for index, layer in enumerate(self.model.layers):
            x, kv = layer(x, cos, sin, cache[index] if cache else None)
            grown.append(kv)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight), grown

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats."""
        logits, _ = self(ids)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.reshape(-1))


# The corpus.


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the standard library; `path` is relative and has forward slashes."""

    path: str
    text: str


def is_held_out(path: str) -> bool:
    """Whether a file is kept out of training: one in fifty, by a hash of its relative path."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") % 50 == 0


def read_corpus(root: Path) -> list[SourceFile]:
    """All files under `root` that are UTF-8 and parse, in the order of their paths."""
    files = []
    for location in sorted(root.rglob("*.py")):
        path = location.relative_to(root).as_posix()
        if path.startswith(("site-packages/", "lib2to3/tests/data/")):
            continue
        try:
            text = location.read_bytes().decode()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(text)
        except (SyntaxError, UnicodeDecodeError):
            continue
        files.append(SourceFile(path, text))
    return files


def split_corpus(files: list[SourceFile]) -> tuple[list[SourceFile], list[SourceFile]]:
    """Training files and held-out files."""
    return [f for f in files if not is_held_out(f.path)], [f for f in files if is_held_out(f.path)]


def encode_files(tokenizer: Tokenizer, files: list[SourceFile]) -> list[Ids]:
    """Each file as ids, between the start and the end token."""
    encodings = tokenizer.encode_batch([f.text for f in files], add_special_tokens=False)
    return [np.array([BOS_ID, *encoding.ids, EOS_ID], dtype=np.uint16) for encoding in encodings]


# The measure.


@torch.no_grad()
def held_out_bits(model: Decoder, documents: list[Ids], num_bytes: int, window: int, stride: int) -> float:
    """Bits per byte of documents that hold `num_bytes` bytes of text, the end tokens included in the bits.

    A window moves over each document by `stride` tokens; only tokens that no earlier window has scored count, so
    each token but the first ones of a document is predicted from at least `window - stride` tokens before it.
    """
    device, nats = model.cos.device, 0.0
    for document in documents:
        ids, scored = torch.from_numpy(document.astype(np.int64)).to(device), 1
        for start in range(0, len(ids), stride):
            end = min(start + window, len(ids))
            if end <= scored:
                break
            logits, _ = model(ids[None, start : end - 1])
            fresh = end - scored
            nats += F.cross_entropy(logits[0, -fresh:].float(), ids[scored:end], reduction="sum").item()
            scored = end
    return nats / math.log(2) / num_bytes
