"""The command line (contract section 7): a module per subcommand, arguments in, lines out.

Nothing but click is imported before a subcommand is chosen: ``run`` has a second to be ready.
"""

from worker.cli.main import commands, main

__all__ = ["commands", "main"]
