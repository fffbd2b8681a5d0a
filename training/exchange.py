"""Tables from and for other programs, by whichever door this package was opened (see core.py)."""

if "." in __package__:
    from ..s4s_nodes.exporters import FORMATS, sigmas_text, write
    from ..s4s_nodes.importers import KINDS, make, merged, published, read
else:
    from s4s_nodes.exporters import FORMATS, sigmas_text, write
    from s4s_nodes.importers import KINDS, make, merged, published, read

__all__ = ["FORMATS", "KINDS", "make", "merged", "published", "read", "sigmas_text", "write"]
