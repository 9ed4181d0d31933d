"""``convert-middleware``: the command for those who run a site.

It joins the parts of delivery as the tracker does, in a process of its own, and shows people what an outbox
holds. It decides nothing about hits.
"""

from convert_middleware.cli.command import main

__all__ = ["main"]
