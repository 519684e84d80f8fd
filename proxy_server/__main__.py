"""`python -m proxy_server`. The command line itself is in cli.py."""

import sys

try:
    from proxy_server.cli import main
except ModuleNotFoundError as error:
    needed = f"the proxy server needs the Python package {error.name!r}: install capnweb-py[images]"
    print(f"error: {needed}", file=sys.stderr)
    sys.exit(2)

sys.exit(main())
