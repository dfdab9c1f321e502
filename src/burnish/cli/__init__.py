"""The command line: one verb per file; `app` knows their names, and imports a verb only when it runs."""
