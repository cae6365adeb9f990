"""Pages that need nothing beside them: markup, charts, tables, a style for light and dark; no page's contents."""
