"""``python -m dlx_deploy.runtime PACKAGE COMMAND``: as ``python PACKAGE COMMAND``, by this installation's code."""

import sys

from .commands.main import main

sys.exit(main(sys.argv[1:]))
