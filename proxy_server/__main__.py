"""`python -m proxy_server`. The command line itself is in cli.py."""

import os
import sys

# `websockets` reads the limits of a handshake from the environment when it is imported. Its own are less than a request
# may have here (see `_MAX_HEAD` in cli.py), and uvicorn never answers a handshake that is past them. So they are none.
for limit in ("WEBSOCKETS_MAX_LINE_LENGTH", "WEBSOCKETS_MAX_NUM_HEADERS"):
    os.environ.setdefault(limit, str(1024 * 1024))

try:
    from proxy_server.cli import main
except ModuleNotFoundError as error:
    extra = "demo" if sys.argv[1:2] == ["demo"] else "proxy"
    needed = f"the proxy server needs the Python package {error.name!r}: install capnweb-py[{extra}]"
    print(f"error: {needed}", file=sys.stderr)
    sys.exit(2)

sys.exit(main())
