"""Rows: found in files, read, converted, de-duplicated, split; what is lost stands in the ledger."""
