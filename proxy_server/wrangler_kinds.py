"""What the keys of a Wrangler file declare, and what becomes of it here.

The keys are those of Wrangler's configuration schema (config-schema.json of npm `wrangler`); which bindings are always
remote is said in binding-local-support.ts of cloudflare/workers-sdk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

__all__ = ["KINDS", "MAPS", "NEEDS", "OTHER_KEYS", "Kind"]


@attrs.frozen
class Kind:
    """What a key of a Wrangler file declares.

    Attributes:
        kind: the type of the binding here; None where there is no such type.
        title: what people call such a binding.
        keys: which of Wrangler's keys become which here.
        silent: Wrangler's other keys, which say nothing here.
        alone: whether the key holds one table, and not an array of them.
        name: the key that names the binding.
        unnamed: whether a declaration without a name is valid, and declares no binding.
        free: whether it may have any other keys.
        always_remote: whether Wrangler's development servers use the real one even where nothing says `remote`.
    """

    kind: str | None
    title: str
    keys: Mapping[str, str] = {}
    silent: tuple[str, ...] = ()
    alone: bool = False
    name: str = "binding"
    unnamed: bool = False
    free: bool = False
    always_remote: bool = False


_TARGET: Final = 'target = "module:Class"'
_URL: Final = 'url = "https://..."'
_ADDRESS: Final = 'allow = ["host:port"]'

# By types: what the `capnweb` table has to say before there is such a binding here. Others need nothing.
NEEDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            "service",
            "agent_memory",
            "ai_search",
            "ai_search_namespace",
            "artifacts",
            "flagship",
            "media",
            "stream",
            "websearch",
        ),
        _TARGET,
    ),
    "dispatch_namespace": 'services = { worker = { target = "module:Class" } }',
    "vpc_service": _ADDRESS,
    "vpc_network": _ADDRESS,
    "hyperdrive": _ADDRESS,
    "ai": _URL,
    "browser": _URL,
    "vectorize": _URL,
    "mtls_certificate": _URL,
    "pipeline": _URL,
}

_SENDERS: Final = ("destination_address", "allowed_destination_addresses", "allowed_sender_addresses")

# By the path of the key in the file.
KINDS: Final[Mapping[str, Kind]] = {
    "kv_namespaces": Kind("kv_namespace", "a KV namespace", {"id": "id"}, ("preview_id",)),
    "r2_buckets": Kind(
        "r2_bucket",
        "an R2 bucket",
        {"bucket_name": "bucket_name"},
        ("preview_bucket_name", "jurisdiction", "local_dev"),
    ),
    "d1_databases": Kind(
        "d1",
        "a D1 database",
        {"database_id": "id"},
        (
            "database_name",
            "preview_database_id",
            "migrations_table",
            "migrations_dir",
            "migrations_pattern",
            "database_internal_env",
        ),
    ),
    "queues.producers": Kind("queue", "a queue", {"queue": "queue", "delivery_delay": "delivery_delay"}),
    "images": Kind("images", "an images binding", alone=True),
    "services": Kind(
        "service", "a service", silent=("service", "entrypoint", "environment", "props", "cross_account_grant", "dev")
    ),
    "send_email": Kind("send_email", "an e-mail binding", {key: key for key in _SENDERS}, name="name"),
    "dispatch_namespaces": Kind("dispatch_namespace", "a dispatch namespace", silent=("namespace", "outbound")),
    "vpc_services": Kind("vpc_service", "a VPC service", silent=("service_id",), always_remote=True),
    "vpc_networks": Kind("vpc_network", "a VPC network", silent=("tunnel_id", "network_id"), always_remote=True),
    "hyperdrive": Kind("hyperdrive", "a Hyperdrive configuration", silent=("id", "localConnectionString")),
    "ai": Kind("ai", "Workers AI", silent=("staging",), alone=True, always_remote=True),
    "browser": Kind("browser", "a browser", alone=True),
    "vectorize": Kind("vectorize", "a Vectorize index", silent=("index_name",)),
    "mtls_certificates": Kind("mtls_certificate", "an mTLS certificate", silent=("certificate_id",)),
    "pipelines": Kind("pipeline", "a pipeline", silent=("pipeline", "stream")),
    "ai_search": Kind("ai_search", "an AI Search instance", silent=("instance_name",), always_remote=True),
    "ai_search_namespaces": Kind(
        "ai_search_namespace", "an AI Search namespace", silent=("namespace",), always_remote=True
    ),
    "media": Kind("media", "Media Transformations", alone=True, always_remote=True),
    "stream": Kind("stream", "Cloudflare Stream", alone=True),
    "artifacts": Kind("artifacts", "an Artifacts namespace", silent=("namespace",), always_remote=True),
    "flagship": Kind("flagship", "a Flagship app", silent=("app_id",), always_remote=True),
    "websearch": Kind("websearch", "web search", alone=True, always_remote=True),
    "agent_memory": Kind("agent_memory", "an agent's memory", silent=("namespace",), always_remote=True),
    # What there is no type of here. It is named, so that using it says why.
    "durable_objects.bindings": Kind(
        None, "a Durable Object", silent=("class_name", "script_name", "environment"), name="name"
    ),
    "workflows": Kind(
        None, "a Workflow", silent=("name", "class_name", "script_name", "limits", "schedules", "remote")
    ),
    "analytics_engine_datasets": Kind(None, "an Analytics Engine dataset", silent=("dataset",)),
    "secrets_store_secrets": Kind(None, "a secret of the Secrets Store", silent=("store_id", "secret_name")),
    "version_metadata": Kind(None, "version metadata", alone=True),
    "assets": Kind(
        None,
        "static assets",
        silent=("directory", "html_handling", "not_found_handling", "run_worker_first"),
        alone=True,
        unnamed=True,
    ),
    "ratelimits": Kind(None, "a rate limit", silent=("namespace_id", "simple"), name="name"),
    "worker_loaders": Kind(None, "a Worker loader"),
    "unsafe.bindings": Kind(None, "an unsafe binding", name="name", free=True),
    "logfwdr.bindings": Kind(None, "a binding of logfwdr", silent=("destination",), name="name"),
    "unsafe_hello_world": Kind(None, "a hello-world binding", silent=("enable_timer",)),
}

# Keys of Worker formats of old, whose tables name a binding by each of their own keys.
MAPS: Final[Mapping[str, str]] = {
    "wasm_modules": "a WebAssembly module",
    "text_blobs": "a text blob",
    "data_blobs": "a data blob",
}

# What else an environment does not inherit and is of a program's `env`.
OTHER_KEYS: Final = ("vars", "secrets")
