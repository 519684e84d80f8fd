"""`python -m proxy_server`. The command line itself is in cli.py."""

import sys

from proxy_server.cli import main

sys.exit(main())
