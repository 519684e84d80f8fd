"""`python -m proxy_server`. The command line itself is in cli.py."""

import os
import sys

# In bytes: a line of a WebSocket's handshake, which `websockets` reads from the environment when it is imported. Its
# own 8 KiB are less than a header may have here, and a handshake with more is never answered.
os.environ.setdefault("WEBSOCKETS_MAX_LINE_LENGTH", str(64 * 1024))

try:
    from proxy_server.cli import main
except ModuleNotFoundError as error:
    needed = f"the proxy server needs the Python package {error.name!r}: install capnweb-py[images]"
    print(f"error: {needed}", file=sys.stderr)
    sys.exit(2)

sys.exit(main())
