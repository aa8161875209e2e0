"""``twinfer devices``: the hardware catalogue, all that is known of one entry or shape, and measuring this machine."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from twinfer.cli.configuration import cache_dir
from twinfer.cli.quantities import in_unit, size
from twinfer.core.config import Config
from twinfer.core.errors import ConfigError
from twinfer.devices.catalogue import CATALOGUE, Catalogue, measured_directory, near
from twinfer.devices.model_config import load_shape, shape_names
from twinfer.devices.profile import Entry, GroupProfile, values, worst_quality
from twinfer.devices.shape import PRECISIONS, ModelShape
from twinfer.devices.summary import class_of, device_summaries, link_summaries

CONTEXTS = (8192, 32768, 131072)
MIN_WIDTH = 100
"""What the tables take; a narrower terminal wraps their lines rather than losing their ends."""


def run(arguments: argparse.Namespace) -> int:
    """List, show or measure."""
    directory = measured_directory(Path(cache_dir(Config())))
    if arguments.action == "measure":
        from twinfer.cli.measure_device import measure
        from twinfer.cli.measure_steps import StepsOf

        cache = Path(cache_dir(Config()))
        steps = StepsOf(arguments.model, arguments.weights, cache) if arguments.model else None
        return measure(directory if arguments.write else None, steps)
    catalogue, console = Catalogue((CATALOGUE, directory)), Console(highlight=False, markup=False)
    console.width = max(console.width, MIN_WIDTH)
    if arguments.action == "show":
        _show(catalogue, arguments.name, arguments.json, console)
    elif arguments.json:
        console.out(json.dumps(_listed(catalogue), indent=2))
    else:
        _list(catalogue, console)
    return 0


def _listed(catalogue: Catalogue) -> dict[str, Any]:
    return {
        "devices": [dataclasses.asdict(one) for one in device_summaries(catalogue)],
        "links": [dataclasses.asdict(one) for one in link_summaries(catalogue)],
        "shapes": list(shape_names()),
    }


def _list(catalogue: Catalogue, console: Console) -> None:
    devices = _table("device", "class", "memory", "bandwidth", "bf16 dense", "$/h", "worst quality")
    for one in device_summaries(catalogue):
        price = "" if one.price_per_hour is None else f"{one.price_per_hour:.2f}"
        memory = in_unit("memory_bytes", one.memory_bytes)
        bandwidth, flops = in_unit("x_bytes_per_s", one.memory_bytes_per_s), in_unit("bf16_flops", one.bf16_flops)
        devices.add_row(one.name, one.kind, memory, bandwidth, flops, price, one.worst.value)
    links = _table("link", "line rate", "reached", "latency", "worst quality")
    for link in link_summaries(catalogue):
        rates = [in_unit("x_bytes_per_s", rate) for rate in (link.line_bytes_per_s, link.reached_bytes_per_s)]
        links.add_row(link.name, *rates, in_unit("latency_s", link.latency_s), link.worst.value)
    for table in (devices, links):
        console.print(table)
        console.print()
    console.print(f"model shapes: {', '.join(shape_names())}")
    if not any(entry.name == "this" for entry in catalogue.entries):
        console.print("`twinfer devices measure --write` adds this machine as the device `this`.")
    console.print("`twinfer devices show NAME` says where each number comes from and what is doubtful.")


def _show(catalogue: Catalogue, name: str, as_json: bool, console: Console) -> None:
    names = [entry.name for entry in catalogue.entries]
    if name.lower() in names:
        entry = catalogue.entry(name)
        shown: Any = msgspec.to_builtins(entry)
    elif name.lower() in shape_names() or Path(name).exists():
        shape = load_shape(name)
        shown = _shape_facts(shape)
    else:
        advice = near(name, sorted([*names, *shape_names()]))
        raise ConfigError(f"there is no device, link or model shape {name!r}; {advice}")
    if as_json:
        console.out(json.dumps(shown, indent=2, ensure_ascii=False))
    elif name.lower() in names:
        _show_entry(entry, console)
    else:
        _show_shape(shape, console)


def _show_entry(entry: Entry, console: Console) -> None:
    console.print(f"{entry.name}: {entry.title}, {entry.unit}; class {class_of(entry)}")
    if isinstance(entry, GroupProfile):
        console.print(f"Made of {entry.of}: `twinfer devices show {entry.of}` has the figures of one.")
    console.print(f"Worst quality of these numbers: {worst_quality(entry).value}.\n")
    table = _table("what", "value", "low", "high", "quality", "source")
    table.columns[-1].overflow = "fold"
    for named in values(entry):
        one = named.value
        numbers = [in_unit(named.name, number) for number in (one.value, one.low, one.high)]
        table.add_row(named.name, *numbers, one.quality.value, one.source)
    console.print(table)
    if entry.doubts:
        console.print("\nWhat is doubtful:")
    for doubt in entry.doubts:
        console.print(f"- {doubt}", soft_wrap=True)


def _shape_facts(shape: ModelShape) -> dict[str, Any]:
    """Dimensions, and what follows from them."""
    return {
        **dataclasses.asdict(shape),
        "num_layers": shape.num_layers,
        "parameters": shape.parameters,
        "active_parameters": shape.active_parameters,
        "weight_bytes": {precision: shape.weight_bytes(precision) for precision in PRECISIONS},
        "kv_bytes_per_token": shape.kv_bytes_per_token(),
        "kv_bytes": {str(tokens): shape.kv_bytes(tokens) for tokens in CONTEXTS},
        "flops_per_token": shape.linear_flops(1),
    }


def _show_shape(shape: ModelShape, console: Console) -> None:
    layers = f"{shape.num_layers} layers"
    if shape.windowed_layers:
        layers += f", {shape.windowed_layers} of them with a window of {shape.window_tokens} tokens"
    heads = f"{shape.num_heads} heads"
    heads += ", latent attention" if shape.latent else f", {shape.num_kv_heads} KV heads of {shape.head_dim}"
    rows = [("layers", layers), ("heads", heads)]
    if shape.is_mixture:
        rows.append(
            ("experts", f"{shape.experts.number} in {shape.expert_layers} layers, {shape.experts.per_token} per token")
        )
    rows.append(("parameters", f"{shape.parameters / 1e9:.4g} B, {shape.active_parameters / 1e9:.3g} B active"))
    for precision in PRECISIONS:
        native = " (as published)" if precision == shape.native else ""
        rows.append((f"weights in {precision}", size(shape.weight_bytes(precision)) + native))
    rows.append(("KV per token", f"{shape.kv_bytes_per_token() / 1024:.4g} KiB in 16 bits, while no window is full"))
    rows += [(f"KV of {tokens // 1024}k tokens", size(shape.kv_bytes(tokens))) for tokens in CONTEXTS]
    rows.append(("per token", f"{shape.linear_flops(1) / 1e9:.3g} GFLOP besides attention"))
    console.print(f"{shape.name}: a model shape\n")
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _table(*heads: str) -> Table:
    """A table without lines, of which only the sources wrap."""
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, no_wrap=head not in ("source",))
    return table
