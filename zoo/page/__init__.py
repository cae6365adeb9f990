"""Pages that need no other file: markup, charts, tables, a style for light and dark. No page's contents are here."""
