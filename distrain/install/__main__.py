"""Entry of `python -m distrain.install [cpu | gpu]`, for launch/install_horovod.sh: it needs no other package.

Decides: how an error ends it. Never: builds anything itself.
"""

from __future__ import annotations

import sys

from distrain.errors import ConfigurationError
from distrain.install.horovod import install_horovod

if __name__ == "__main__":
    try:
        install_horovod(*sys.argv[1:2])
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
