"""Wrangler's own configuration files, read as a capnweb configuration.

Only what declares bindings and variables is looked at: the rest of a Wrangler file configures a Worker. What Wrangler
has no word for stands in a table of this project's, `capnweb`, which Wrangler passes over: its `server` and `remote`
are those of a capnweb configuration, and a table under its `bindings` is laid over that of the binding of this name, or
declares one of its own.

What is not understood is said, as Wrangler does: a misspelled key would otherwise be a binding that is missing, or a
local one that was meant to be remote.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from proxy_server.tables import ConfigError, suggestion
from proxy_server.wrangler_kinds import KINDS, MAPS, NEEDS, OTHER_KEYS, Kind

__all__ = ["OWN_KEY", "Elsewhere", "WranglerFile", "is_wrangler_file", "read_wrangler"]

# The key of a Wrangler file for what only this project knows.
OWN_KEY: Final = "capnweb"

# What a queue's consumer says, and is the queue's here.
_CONSUMER_KEYS: Final = ("max_retries", "dead_letter_queue", "retry_delay", "visibility_timeout_ms", "max_batch_size")

# What of a table of `capnweb.bindings` says nothing of how a binding is to be had here.
_SAYING_NOTHING: Final = frozenset({"type", "remote", "access"})

# The keys of a Wrangler file, or of an environment of it, that declare what a program has.
_DECLARING: Final = (*dict.fromkeys(key.partition(".")[0] for key in KINDS), *MAPS, *OTHER_KEYS)

# How much alike a key and one of those must be for it to be meant: "kv_namespace", and not "keep_vars".
_ALIKE: Final = 0.8


@attrs.frozen
class Elsewhere:
    """Why a binding is none here, and what would make it one.

    Attributes:
        why: such as 'services[0]: the service "AUTH" names a Worker, and Python runs here'.
        here: what to write to have it here: 'add target = "module:Class" to [capnweb.bindings.AUTH]'.
        remote: whether saying `remote` would be understood.
    """

    why: str
    here: str
    remote: bool = True

    def __str__(self) -> str:
        return f"{self.why}: {'say that it is remote, or ' if self.remote else ''}{self.here}"


@attrs.frozen
class WranglerFile:
    """A Wrangler file as a capnweb configuration.

    Attributes:
        document: the configuration, with the tables `server`, `remote` and `bindings`.
        elsewhere: which bindings can only be had from elsewhere, if at all, with the reason of each.
        variables: what `vars` holds.
        secrets: the names under `secrets.required`; None where the file does not say them.
        warnings: what was not understood.
        places: where each binding stands in the file, and by the keys of its table where these do.
    """

    document: dict[str, Any]
    elsewhere: Mapping[str, Elsewhere]
    variables: Mapping[str, Any] = attrs.field(factory=dict)
    secrets: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()
    places: Mapping[str, tuple[str, Mapping[str, str]]] = attrs.field(factory=dict)


def is_wrangler_file(source: Path) -> bool:
    """Whether a file is one of Wrangler's, by its name: wrangler.toml, or JSON, which only Wrangler's are."""
    return source.suffix in {".json", ".jsonc"} or (source.stem.startswith("wrangler") and source.suffix == ".toml")


def read_wrangler(document: Mapping[str, Any], source: Path, environment: str | None = None) -> WranglerFile:
    """Read a Wrangler file.

    Args:
        document: the whole file.
        source: the file's path, for errors.
        environment: whose bindings are meant, as of `wrangler --env`; by default those of the top level. Bindings and
            variables are not inherited from the top level, as Wrangler has it; the `capnweb` table is.

    Raises:
        ConfigError: if there is no such environment, or a declaration is not valid.
    """
    place, prefix = _of_environment(document, source, environment)
    reading = _Reading(source, place, prefix)
    own = reading.table(place.get(OWN_KEY, document.get(OWN_KEY, {})), OWN_KEY)
    inherited = environment is not None and OWN_KEY not in place
    reading.read_bindings(reading.table(own.get("bindings", {}), f"{OWN_KEY}.bindings"), inherited=inherited)
    reading.look_for_mistakes()
    if environment is not None:
        for key in _DECLARING:
            if key in document and key not in place:
                reading.warnings.append(f"{key}: it is not inherited by environments, and {prefix}{key} is missing")
    variables = reading.table(place.get("vars", {}), f"{prefix}vars")
    for name in variables.keys() & {*reading.bindings, *reading.elsewhere}:
        raise ConfigError(source, f"{prefix}vars.{name}", f'the name "{name}" is taken by a binding')
    return WranglerFile(
        {**own, "bindings": reading.bindings},
        reading.elsewhere,
        variables,
        reading.required_secrets(),
        tuple(reading.warnings),
        reading.places,
    )


def _of_environment(
    document: Mapping[str, Any], source: Path, environment: str | None
) -> tuple[Mapping[str, Any], str]:
    """The table that declares the bindings of an environment, and what stands before its keys in errors."""
    if environment is None:
        return document, ""
    environments = _Reading(source, document, "").table(document.get("env", {}), "env")
    if environment not in environments:
        problem = f'there is no environment "{environment}": {suggestion(environment, environments)}'
        raise ConfigError(source, "env", problem)
    prefix = f"env.{environment}"
    return _Reading(source, document, "").table(environments[environment], prefix), f"{prefix}."


class _Reading:
    """What is read of a file, or of an environment of it.

    Args:
        source: the file.
        place: the table that has the keys.
        prefix: what stands before them in errors.
    """

    def __init__(self, source: Path, place: Mapping[str, Any], prefix: str) -> None:
        self._source = source
        self._place = place
        self._prefix = prefix
        self.bindings: dict[str, dict[str, Any]] = {}
        self.elsewhere: dict[str, Elsewhere] = {}
        self.warnings: list[str] = []
        self.places: dict[str, tuple[str, dict[str, str]]] = {}

    def table(self, value: Any, path: str) -> Mapping[str, Any]:
        """A value that has to be a table."""
        if not isinstance(value, dict):
            raise ConfigError(self._source, path, "a table is needed here")
        return value

    def read_bindings(self, over: Mapping[str, Any], *, inherited: bool) -> None:
        """Read what is declared, with the tables that are laid over it. Where those are inherited, some may be of
        bindings that are not."""
        laid_over = {name: self.table(table, f"{OWN_KEY}.bindings.{name}") for name, table in over.items()}
        for key, kind in KINDS.items():
            for path, entry in self._entries(key, kind.alone):
                if kind.unnamed and kind.name not in entry:
                    continue
                name = entry.get(kind.name)
                if not isinstance(name, str) or not name:
                    problem = f'a table with the key "{kind.name}", a name, is needed here'
                    close = [] if kind.name in entry else difflib.get_close_matches(kind.name, entry, n=1)
                    problem += f': is "{close[0]}" meant to be it?' if close else ""
                    raise ConfigError(self._source, path, problem)
                self._check_keys(path, entry, kind)
                self._add(name, path, kind, entry, laid_over.get(name, {}))
        for key, title in MAPS.items():
            for name in self.table(self._place.get(key, {}), self._prefix + key):
                self._add(name, f"{self._prefix}{key}.{name}", Kind(None, title), {}, laid_over.get(name, {}))
        for name, table in laid_over.items():
            if name not in self.bindings and name not in self.elsewhere and not (inherited and "type" not in table):
                self._add_own(name, table)
        self._add_consumers()

    def _add(self, name: str, path: str, kind: Kind, entry: Mapping[str, Any], added: Mapping[str, Any]) -> None:
        if name in self.bindings or name in self.elsewhere:
            raise ConfigError(self._source, path, f'the name "{name}" is taken by another binding')
        if kind.kind is None and "type" not in added:
            why = f'{path}: the binding "{name}" is {kind.title}, which there is no type of binding for here'
            self.elsewhere[name] = Elsewhere(why, self._advice(name, 'type = "..."'), remote=False)
            return
        table: dict[str, Any] = {"type": kind.kind}
        table |= {ours: entry[theirs] for theirs, ours in kind.keys.items() if theirs in entry}
        # "access" is no key of Wrangler's, which passes it over; a person who writes it means it.
        table |= {key: entry[key] for key in ("remote", "access") if key in entry}
        table |= added
        places = {ours: f"{path}.{theirs}" for theirs, ours in kind.keys.items()}
        places |= {"type": path, **{key: f"{OWN_KEY}.bindings.{name}.{key}" for key in added}}
        self.places[name] = path, places
        needs = NEEDS.get(table["type"])
        is_here = needs is None or bool(added.keys() - _SAYING_NOTHING)
        if kind.always_remote and not is_here:
            table.setdefault("remote", True)
        self.bindings[name] = table
        if needs is not None and not is_here:
            if kind.kind == "service":
                why = f'the service "{name}" names a Worker, and Python runs here'
            else:
                why = f'the binding "{name}" is {kind.title}, which has no counterpart here'
            self.elsewhere[name] = Elsewhere(f"{path}: {why}", self._advice(name, needs))

    def _add_own(self, name: str, table: Mapping[str, Any]) -> None:
        """A binding that Wrangler is told nothing of."""
        if "type" not in table:
            problem = "the file declares no such binding, and one of its own needs a type"
            path = f"{OWN_KEY}.bindings.{name}"
            raise ConfigError(self._source, path, f"{problem}: {suggestion(name, self.bindings)}")
        self.bindings[name] = dict(table)
        self.places[name] = f"{OWN_KEY}.bindings.{name}", {}

    def _advice(self, name: str, needs: str) -> str:
        """What to write, in the language of the file."""
        if self._source.suffix == ".toml":
            return f"add [{OWN_KEY}.bindings.{name}] with {needs}"
        return f"add {json.dumps({OWN_KEY: {'bindings': {name: tomllib.loads(needs)}}})}"

    def _entries(self, key: str, alone: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The declarations under a key, each with its path."""
        place = self._place
        outer, _, inner = key.rpartition(".")
        if outer:
            place = self.table(place.get(outer, {}), self._prefix + outer)
        if inner not in place:
            return
        path = self._prefix + key
        declared = place[inner]
        if alone:
            yield path, self.table(declared, path)
            return
        if not isinstance(declared, list):
            raise ConfigError(self._source, path, "an array is needed here")
        for index, entry in enumerate(declared):
            yield f"{path}[{index}]", self.table(entry, f"{path}[{index}]")

    def _add_consumers(self) -> None:
        """What the consumer of a queue says of it, where there is a binding of the same one."""
        for path, entry in self._entries("queues.consumers", alone=False):
            said = {key: entry[key] for key in _CONSUMER_KEYS if key in entry}
            for name, binding in self.bindings.items():
                if binding["type"] == "queue" and binding.get("queue", name) == entry.get("queue"):
                    self.places[name][1].update({key: f"{path}.{key}" for key in said.keys() - binding.keys()})
                    binding.update({**said, **binding})

    def required_secrets(self) -> tuple[str, ...] | None:
        """The names of the secrets that the file asks for; None where it does not say them."""
        if "secrets" not in self._place:
            return None
        required = self.table(self._place["secrets"], f"{self._prefix}secrets").get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise ConfigError(self._source, f"{self._prefix}secrets.required", "an array of strings is needed here")
        return tuple(required)

    def _check_keys(self, path: str, entry: Mapping[str, Any], kind: Kind) -> None:
        if "experimental_remote" in entry:
            # Wrangler passes it over today. A binding that was meant to be remote would be a local one.
            raise ConfigError(
                self._source, f"{path}.experimental_remote", 'Wrangler calls it "remote" by now: write that'
            )
        if kind.free:
            return
        known = {kind.name, "remote", "access", *kind.keys, *kind.silent}
        for key in entry:
            if key not in known:
                self.warnings.append(f"{path}.{key}: unknown key, which is passed over: {suggestion(key, known)}")

    def look_for_mistakes(self) -> None:
        """Keys that declare bindings, by their look or by their name, and that Wrangler does not have."""
        for key, value in self._place.items():
            if key in _DECLARING or key == "env":
                continue
            meant = difflib.get_close_matches(key, _DECLARING, n=1, cutoff=_ALIKE)
            names = list(_names(value))
            if not meant and not names:
                continue
            path = self._prefix + key
            why = f"{path}: no such key is known here" + (f': did you mean "{meant[0]}"?' if meant else "")
            self.warnings.append(f"{why}: it is passed over")
            for name in names:
                if name not in self.bindings:
                    self.elsewhere.setdefault(name, Elsewhere(why, self._advice(name, 'type = "..."'), remote=False))


def _names(value: Any) -> Iterator[str]:
    """The names of bindings, in what looks like declarations of them."""
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, dict) and isinstance(name := entry.get("binding"), str):
            yield name
