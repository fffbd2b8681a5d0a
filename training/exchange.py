"""The presets on this machine, tables from and for other programs, by the door this package was opened (core.py)."""

if "." in __package__:
    from ..s4s_nodes.core.conditioned import joined
    from ..s4s_nodes.exporters import FORMATS, sigmas_text, write
    from ..s4s_nodes.importers import KINDS, make, merged, published, read
    from ..s4s_nodes.library import Library, measured, recommended, shipped_folder, tables_of
else:
    from s4s_nodes.core.conditioned import joined
    from s4s_nodes.exporters import FORMATS, sigmas_text, write
    from s4s_nodes.importers import KINDS, make, merged, published, read
    from s4s_nodes.library import Library, measured, recommended, shipped_folder, tables_of

__all__ = ["FORMATS", "KINDS", "Library", "joined", "make", "measured", "merged", "published", "read", "recommended",
           "shipped_folder", "sigmas_text", "tables_of", "write"]
