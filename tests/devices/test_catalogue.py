"""Every file of the catalogue is whole, and one that is not is refused with its name and the key."""

import re
from pathlib import Path

import pytest

from twinfer.core.errors import ConfigError
from twinfer.devices.catalogue import CATALOGUE, Catalogue, near, read_entry
from twinfer.devices.profile import GroupProfile, LinkProfile, PipelineProfile, RooflineProfile, values, worst_quality
from twinfer.devices.value import Quality

FILES = sorted(CATALOGUE.glob("*.toml"))


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """The shipped one."""
    return Catalogue()


def test_what_is_in_it(catalogue: Catalogue) -> None:
    """The devices and links that the documentation speaks of."""
    kinds = {entry.name: type(entry) for entry in catalogue.entries}
    assert {
        "roofline": "a10 b200 b300 gb200 graviton4 h100 h200 mi300x mi355x tpu-v6e tpu7x trn2 trn3 xeon-amx",
        "pipeline": "cs3 groq-lpu",
        "group": "trn3-ultraserver-gen1 trn3-ultraserver-gen2",
        "link": "cs3-inlet efa-p5 efa-p5en efa-p6-b200 efa-p6-b300 efa-trn2 efa-trn3 ethernet-100g infiniband-400 "
        "nvlink4 nvlink5 rdma-4x400-sglang rdma-8x200-vllm shm tcp",
    } == {
        word: " ".join(name for name, kind in kinds.items() if kind is cls)
        for word, cls in {
            "roofline": RooflineProfile,
            "pipeline": PipelineProfile,
            "group": GroupProfile,
            "link": LinkProfile,
        }.items()
    }


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_number_has_a_source_that_says_something(path: Path) -> None:
    """A source is a phrase, and efficiencies are shares."""
    for named in values(read_entry(path)):
        assert len(named.value.source) >= 8, named.name
        if "efficiency" in named.name or named.name in ("reserved_share", "moe_factor"):
            assert 0 < named.value.value <= 1, named.name


def test_peaks_are_dense(catalogue: Catalogue) -> None:
    """The figures that brochures give with sparsity are not those of the catalogue."""
    peaks = {
        name: catalogue.device(name)[0].bf16_flops.value / 1e12 for name in ("trn2", "trn3", "cs3", "h100", "b200")
    }
    assert {"trn2": 667.0, "trn3": 671.0, "cs3": 15600.0, "h100": 989.0, "b200": 2250.0} == peaks


def test_ultraservers_are_chips_times_their_number(catalogue: Catalogue) -> None:
    """144 GiB is one chip; the larger UltraServer has 144 of them."""
    chip, number = catalogue.device("trn3-ultraserver-gen2")
    assert ("trn3", 144) == (chip.name, number)
    assert 22.3 == pytest.approx(chip.memory_bytes.value * number / 1e12, abs=0.1)
    assert 706 == pytest.approx(chip.memory_bytes_per_s.value * number / 1e12, abs=1)


def test_the_worst_tag_of_a_device_shows(catalogue: Catalogue) -> None:
    """A CS-3's step times rest on an estimate at best."""
    assert Quality.ESTIMATE == worst_quality(catalogue.entry("cs3"))
    assert Quality.RECALLED == worst_quality(catalogue.entry("groq-lpu"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("bf16_flops", "bf16_flop"), r"x.toml: object contains unknown field `bf16_flop`"),
        ((r"\[memory_bytes\]", "[memory_byte]"), r"x.toml: object contains unknown field `memory_byte`"),
        (("low = 650e12", "low = 700e12"), r"x.toml: value 6.5e\+14 lies outside its own range .* in `bf16_flops`"),
        (('source = "a sheet"\n', ""), r"x.toml: object missing required field `source` in `bf16_flops`"),
        (('source = "a sheet"', 'source = ""'), r"x.toml: source is empty; .* in `bf16_flops`"),
        (('quality = "vendor"', 'quality = "V"'), r"x.toml: invalid enum value 'V' in `bf16_flops.quality`"),
        (('name = "x"', 'name = "y"'), r"x.toml: `name` is 'y'; it has to be the file's name, 'x'"),
        (('class = "pipeline_sram"', 'class = "magic"'), r"x.toml: invalid value 'magic' in `class`"),
        ((r"\[hop_s\]", "[hop_s"), r"x.toml is not TOML: "),
        ((r"\[hop_s\](\n.+)+", ""), r"x.toml: object missing required field `hop_s`"),
    ],
)
def test_a_broken_file_is_named_with_its_key(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    """One sentence: which file, which key, what is wrong."""
    text = (CATALOGUE / "cs3.toml").read_text(encoding="utf-8").replace('"cs3"', '"x"')
    peak = '[bf16_flops]\nvalue = 650e12\nlow = 650e12\nhigh = 650e12\nquality = "vendor"\nsource = "a sheet"\n'
    text = re.sub(r"\[bf16_flops\](\n.+)+\n", peak, text)
    path = tmp_path / "x.toml"
    path.write_text(text, encoding="utf-8")
    assert "x" == read_entry(path).name
    path.write_text(re.sub(change[0], change[1], text, count=1), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_entry(path)


def test_a_later_directory_wins(tmp_path: Path) -> None:
    """What was measured here stands in for what others say, and adds to it."""
    text = (CATALOGUE / "tcp.toml").read_text(encoding="utf-8")
    (tmp_path / "tcp.toml").write_text(text.replace("TCP, one connection", "TCP here"), encoding="utf-8")
    assert "TCP here" == Catalogue((CATALOGUE, tmp_path)).entry("tcp").title


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cs-3", "there is no device or link 'cs-3' in the catalogue; did you mean cs3"),
        ("ultraserver", "did you mean trn3-ultraserver-gen"),
        ("zzz", "known are a10, b200"),
    ],
)
def test_unknown_names_lead_to_near_ones(catalogue: Catalogue, name: str, message: str) -> None:
    """Somebody who mistypes learns what there is."""
    with pytest.raises(ConfigError, match=message):
        catalogue.entry(name)


def test_names_are_found_in_any_case(catalogue: Catalogue) -> None:
    """H100 is h100."""
    assert "h100" == catalogue.entry("H100").name


def test_devices_and_links_are_told_apart(catalogue: Catalogue) -> None:
    """Asked for the one with the other's name, it lists the right ones."""
    with pytest.raises(ConfigError, match="tcp is a link, no device; devices are a10, b200"):
        catalogue.device("tcp")
    with pytest.raises(ConfigError, match="h100 is a device, no link; links are cs3-inlet"):
        catalogue.link("h100")


def test_near_of_nothing_like_it() -> None:
    """Without anything near, all are listed."""
    assert "known are a, b" == near("xyz", ["a", "b"])
