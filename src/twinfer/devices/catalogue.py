"""Finds and reads the catalogue's files: one per device and link, those measured on this machine besides."""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from twinfer.core.errors import ConfigError
from twinfer.devices.profile import Device, Entry, GroupProfile, LinkProfile

CATALOGUE = Path(__file__).parent / "catalogue"


def measured_directory(cache_dir: Path) -> Path:
    """Where profiles of this machine, and those that somebody added, are kept."""
    return cache_dir / "devices"


def read_entry(path: Path) -> Entry:
    """One file of the catalogue.

    Raises:
        ConfigError: the file and the key, and what is wrong: not TOML, an unknown or missing key, a value outside its
            own range, a number without a source.
    """
    try:
        text = path.read_text(encoding="utf-8")
        entry: Entry = msgspec.convert(tomllib.loads(text), Entry)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the profile {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path.name}: {_readable(str(error))}") from error
    if entry.name != path.stem:
        raise ConfigError(f"{path.name}: `name` is {entry.name!r}; it has to be the file's name, {path.stem!r}")
    return entry


def near(name: str, known: Sequence[str]) -> str:
    """What somebody who wrote ``name`` may have meant, as the end of a sentence."""
    lowered = name.lower()
    found = difflib.get_close_matches(lowered, known, 3, 0.5) or [one for one in known if lowered and lowered in one]
    if found:
        return f"did you mean {' or '.join(found[:3])}?"
    return f"known are {', '.join(known)}"


class Catalogue:
    """All entries by name.

    Args:
        directories: where the files are; of two with the same name, that of the later directory counts.
    """

    def __init__(self, directories: Sequence[Path] = (CATALOGUE,)) -> None:
        paths = [path for directory in directories for path in sorted(directory.glob("*.toml"))]
        self._entries = {path.stem: read_entry(path) for path in paths}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them, by name."""
        return tuple(self._entries[name] for name in sorted(self._entries))

    def entry(self, name: str) -> Entry:
        """The one of that name.

        Raises:
            ConfigError: there is none; with the nearest names.
        """
        found = self._entries.get(name.lower())
        if found is None:
            advice = near(name, sorted(self._entries))
            raise ConfigError(f"there is no device or link {name!r} in the catalogue; {advice}")
        return found

    def device(self, name: str) -> tuple[Device, int]:
        """A device, and how many of it the name stands for.

        Raises:
            ConfigError: no such device, or a link's name.
        """
        found = self.entry(name)
        if isinstance(found, GroupProfile):
            member, number = self.device(found.of)
            return member, number * int(found.devices.value)
        if isinstance(found, LinkProfile):
            names = ", ".join(entry.name for entry in self.entries if not isinstance(entry, LinkProfile))
            raise ConfigError(f"{found.name} is a link, no device; devices are {names}")
        return found, 1

    def link(self, name: str) -> LinkProfile:
        """A link.

        Raises:
            ConfigError: no such link, or a device's name.
        """
        found = self.entry(name)
        if isinstance(found, LinkProfile):
            return found
        names = ", ".join(entry.name for entry in self.entries if isinstance(entry, LinkProfile))
        raise ConfigError(f"{found.name} is a device, no link; links are {names}")


def _readable(error: str) -> str:
    """A message of msgspec's with its path as the key that people wrote."""
    text, _, place = error.partition(" - at `$")
    key = place.strip("`").lstrip(".")
    return f"{text[0].lower()}{text[1:]} in `{key}`" if key else f"{text[0].lower()}{text[1:]}"
